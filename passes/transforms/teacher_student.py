"""One graph with the unpruned network as teacher and many pruned tuning blocks as students (paper, section 6.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import MULTIPLIERS_KEY, Graph, Model, Tensor
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.transforms.extract_blocks import ExtractBlocks
from wootz.passes.transforms.fold_batchnorm import FoldBatchNorm
from wootz.passes.transforms.prune_blocks import BlockPruner

TEACHER = "teacher/"


def student_prefix(index: int) -> str:
    """What the names of all tensors and nodes of student `index` begin with."""
    return f"block{index}/"


def student_loss(index: int) -> str:
    """The name of the graph output with the loss of student `index`."""
    return student_prefix(index) + "loss"


@dataclass(frozen=True)
class TeacherStudent(Pass):
    """Puts the teacher and a student for each block side by side; the outputs are the students' losses.

    The teacher is the network in inference mode: BatchNormalization folded, weights constant, cut off after the last
    tensor that a student needs. A student is the block's modules, pruned, with what remains of the teacher's
    weights. It reads the teacher's input to these modules; its loss is mean((O - O')²) over all elements of
    the teacher's output O and its own output O'. Students may overlap: they never feed each other.

    Refuses modules that the model does not have, blocks whose modules are not consecutive, and a block that begins or
    ends at a tensor which folding removes.
    """

    name = "teacher-student"
    blocks: str = option("", "the students: MODULE@RATE, several joined by +, students separated by commas")
    criterion: str = option("l1", "importance of a filter, for the channels that students keep")

    def apply(self, model: Model) -> PassResult:
        try:
            blocks = parse_blocks(self.blocks, model)
        except WootzError as error:
            raise self.refuse(str(error)) from error
        joint = self.join(BlockPruner.of(model, self.criterion), blocks)
        return PassResult(joint, modified=True, statistics={"students": len(blocks)})

    def join(self, pruner: BlockPruner, blocks: Sequence[TuningBlock]) -> Model:
        """The joint graph of `blocks` with the pruner's model as teacher; student i is the i-th block."""
        model = pruner.model
        teacher = FoldBatchNorm().apply(model).model.graph.copy()
        taps = teacher.tensors()
        add_prefix(teacher, TEACHER, keep={t.name for t in teacher.inputs})
        multipliers = json.loads(model.metadata.get(MULTIPLIERS_KEY, "{}"))
        joint_multipliers = {}
        losses = []
        for index, block in enumerate(blocks):
            student = student_model(pruner, block)
            entry, exit_ = student.modules[0].entry, student.modules[-1].exit
            for tap in (entry, exit_):
                if tap not in taps:
                    raise self.refuse(f"block {block} meets the teacher at {tap}, which folding removes")
            output = student.graph.outputs[0]
            _feed_from(student.graph, taps[entry])
            add_prefix(student.graph, student_prefix(index), keep={taps[entry].name})
            teacher.nodes.extend(student.graph.nodes)
            losses.append(_reconstruction_loss(teacher, taps[exit_], output, student_prefix(index)))
            joint_multipliers.update({student_prefix(index) + name: m for name, m in multipliers.items()})
        teacher.outputs = losses
        teacher.name = "teacher-student"
        teacher.cleanup().toposort()
        metadata = {MULTIPLIERS_KEY: json.dumps(joint_multipliers)} if joint_multipliers else {}
        return Model(teacher, metadata=metadata)


def student_model(pruner: BlockPruner, block: TuningBlock) -> Model:
    """The block's modules alone, pruned, with what remains of the teacher's weights; names are the teacher's."""
    names = [pruner.modules[m].name for m in block.modules]
    rates = {name: symbol.rate for name, symbol in zip(names, block.symbols, strict=True)}
    pruned = pruner.materialize(pruner.plan(rates))
    return ExtractBlocks(first=names[0], last=names[-1]).apply(pruned).model


def parse_blocks(text: str, model: Model) -> tuple[TuningBlock, ...]:
    """The blocks written as `res2a@0.3+res2b@0.5,res2a@0.7`. Raises WootzError for what can't be read."""
    positions = {module.name: i for i, module in enumerate(model.modules)}
    return tuple(_parse_block(part, positions) for part in text.split(",") if part.strip())


def _parse_block(text: str, positions: Mapping[str, int]) -> TuningBlock:
    symbols = []
    for part in text.strip().split("+"):
        module, _, rate = part.rpartition("@")
        if module not in positions:
            raise WootzError(f"{part!r} is not MODULE@RATE with one of the modules {', '.join(positions) or '(none)'}")
        try:
            symbols.append(Symbol(positions[module], float(rate)))
        except ValueError as error:
            raise WootzError(f"{part!r}: {rate!r} is not a rate") from error
    first = symbols[0].module
    if [s.module for s in symbols] != list(range(first, first + len(symbols))):
        raise WootzError(f"the modules of {text.strip()!r} are not consecutive")
    return TuningBlock(tuple(symbols))


def add_prefix(graph: Graph, prefix: str, keep: set[str]) -> None:
    """Puts `prefix` before the names of all nodes, and of all tensors but those in `keep`."""
    for name, tensor in graph.tensors().items():
        if name not in keep:
            tensor.name = prefix + name
    for node in graph.nodes:
        node.name = prefix + node.name


def _feed_from(student: Graph, tap: Tensor) -> None:
    """Makes the student read `tap` instead of its graph input."""
    source = student.inputs[0]
    for node in list(source.outputs):
        node.inputs = [tap if t is source else t for t in node.inputs]
    student.inputs = []


def _reconstruction_loss(graph: Graph, target: Tensor, output: Tensor, prefix: str) -> Tensor:
    build = Builder(graph, prefix)
    difference = build.op("Sub", output, target, hint="difference")
    square = build.op("Mul", difference, difference, hint="square")
    return build.op("ReduceMean", square, keepdims=0, hint="loss")
