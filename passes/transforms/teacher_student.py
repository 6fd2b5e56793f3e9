"""One graph with the unpruned network as teacher and many pruned tuning blocks as students (paper, section 6.1)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.index_maps import first_along, varying_axes
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import MULTIPLIERS_KEY, Graph, Model, Node, Tensor, constant_behind, copy_graph
from wootz.passes.ir.rewrite import redirect_readers, replace_node, rewriting
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.metadata import read_metadata
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.subspace import SKIP, SKIP_TEXT, Rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.fold_batchnorm import FoldBatchNorm
from wootz.passes.transforms.fold_constants import FoldConstants

TEACHER = "teacher/"
STUDENTS = "block"
"""What the names of all students begin with."""


SMALLEST_SIZE = 1e-12
"""What an output's mean square counts as at least, where errors of several outputs are compared."""


def student_prefix(index: int) -> str:
    """What the names of all tensors and nodes of student `index` begin with."""
    return f"{STUDENTS}{index}/"


def student_loss(index: int) -> str:
    """The name of the graph output with the loss of student `index`."""
    return student_prefix(index) + "loss"


@dataclass(frozen=True)
class TeacherStudent(Pass):
    """Puts the teacher and a student for each block side by side; the outputs are the students' losses.

    1. The teacher is the network in inference mode: constants and BatchNormalization folded, or the latter written as
       Mul and Add where it can't be, Dropout left out, weights constant, cut off after the last tensor that a student
       needs.
    2. A student is the block's modules, pruned, with what remains of the teacher's weights. It reads the teacher's
       inputs to these modules; its loss is mean((O - O')²) over all elements of the teacher's output O and its own
       output O'. With several outputs it is the mean over these of mean((O - O')²) / mean(O²): maps of small numbers
       count as much as maps of large ones. Students may overlap: they never feed each other.
    3. In a chain of layers the modules before a block decide how many channels come in: the student reads those
       channels of the teacher's input that are left, and its output is compared with those channels of the teacher's
       that it has itself.
    4. Weights that layers outside the block read, too, stay as they are: they have lr_mult 0 (`wootz.multipliers`).

    Refuses to have no student, a student whose modules are all left out, modules that the model does not have, blocks
    whose modules are not consecutive, and modules that are no pieces of their own (see `extract-blocks`).
    """

    name = "teacher-student"
    requires = "the students: teacher-student{blocks=MODULE@RATE,…}"
    blocks: str = option(
        "", "the students, by commas: MODULE@RATE, several joined by +, behind others as A@RATE>B@RATE"
    )
    criterion: str = option("l1", "importance of a filter, for the channels that students keep")
    pruner: BlockPruner | None = None
    """That of the model, where it has been analysed already."""

    def apply(self, model: Model) -> PassResult:
        pruner = self.pruner or BlockPruner.of(model, self.criterion)
        try:
            blocks = parse_blocks(self.blocks, pruner)
            if not blocks:
                names = ", ".join(module.name for module in pruner.modules) or "none"
                raise self.refuse(f"no students: option blocks takes MODULE@RATE,… (modules: {names})")
            joint = self.join(pruner, blocks)
        except PassError:
            raise
        except WootzError as error:
            raise self.refuse(str(error)) from error
        return PassResult(joint, modified=True, statistics={"students": len(blocks)})

    def join(self, pruner: BlockPruner, blocks: Sequence[TuningBlock]) -> Model:
        """The joint graph of `blocks` with the pruner's model as teacher; student i is the i-th block."""
        teacher = in_inference_mode(replace(pruner.model, modules=pruner.modules))
        taps = _Taps(teacher)
        add_prefix(teacher, TEACHER, keep={t.name for t in teacher.inputs})
        metadata = pruner.model.metadata
        multipliers = read_metadata(metadata, MULTIPLIERS_KEY, dict[str, tuple[float, float]], "{}")
        joint_multipliers = {}
        losses = []
        for index, block in enumerate(blocks):
            if all(symbol.is_skipped for symbol in block.symbols):
                raise WootzError(f"block {block} has nothing to train: all of its modules are left out")
            student = pruner.student(block)
            graph, prefix = copy_graph(student.model.graph), student_prefix(index)
            sources, targets = (
                [taps.channels(t.name, student.kept(t.name)) for t in ends] for ends in (graph.inputs, graph.outputs)
            )
            for own, source in zip(graph.inputs, sources, strict=True):
                redirect_readers(own, source)
            graph.inputs = []
            add_prefix(graph, prefix, keep={source.name for source in sources})
            teacher.nodes.extend(graph.nodes)
            losses.append(_reconstruction_loss(teacher, targets, graph.outputs, prefix))
            of_student = {**multipliers, **dict.fromkeys(sorted(student.shared), (0.0, 0.0))}
            joint_multipliers.update({prefix + name: m for name, m in of_student.items()})
        teacher.outputs = losses
        teacher.name = "teacher-student"
        teacher.cleanup().toposort()
        metadata = {MULTIPLIERS_KEY: json.dumps(joint_multipliers)} if joint_multipliers else {}
        return Model(teacher, metadata=metadata)


def parse_blocks(text: str, pruner: BlockPruner) -> tuple[TuningBlock, ...]:
    """The blocks written as `res2a@0.3+res2b@0.5,res2a@0.7/0.5`, in chains `conv1@0.3>conv2@0.5`.

    Several rates are one for each convolution, `skip` leaves the module out; #2 is the second module, whose name may
    have one of `,+>` in it. What stands before `>` is no part of the block: it says at which rates the modules are
    pruned that the input comes from, 0 where nothing is said. Raises WootzError for what can't be read.
    """
    sources = pruner.input_sources.of_modules
    positions = {module.name: i for i, module in enumerate(pruner.modules)}
    positions |= {f"#{i + 1}": i for i in range(len(pruner.modules))}
    return tuple(_parse_block(part, positions, sources) for part in text.split(",") if part.strip())


def format_blocks(blocks: Iterable[TuningBlock], pruner: BlockPruner) -> str:
    """The text that `parse_blocks` reads back."""
    sources = pruner.input_sources.of_modules
    return ",".join(_format_block(block, pruner, sources) for block in blocks)


def _format_block(block: TuningBlock, pruner: BlockPruner, sources: Mapping[int, Sequence[int]]) -> str:
    def formatted(module: int, rate: Rate) -> str:
        name = pruner.modules[module].name
        rates = rate if isinstance(rate, tuple) else (rate,)
        text = SKIP_TEXT if rate == SKIP else "/".join(repr(float(r)) for r in rates)
        is_plain = not name.startswith("#") and not set(name) & set(",+>")
        return f"{name if is_plain else f'#{module + 1}'}@{text}"

    before: dict[int, Rate] = {}
    for symbol in block.symbols:
        before.update(zip(sources.get(symbol.module, ()), symbol.input_rates, strict=False))
    outside = "+".join(formatted(m, rate) for m, rate in before.items() if m not in block.modules)
    return f"{outside}>" * bool(outside) + "+".join(formatted(s.module, s.rate) for s in block.symbols)


def _parse_block(text: str, positions: Mapping[str, int], sources: Mapping[int, Sequence[int]]) -> TuningBlock:
    before, _, inside = text.strip().rpartition(">")
    outer = dict(_parse_rate(part, positions) for part in before.split("+") if part)
    own = [_parse_rate(part, positions) for part in inside.split("+")]
    first = own[0][0]
    if [module for module, _ in own] != list(range(first, first + len(own))):
        raise WootzError(f"the modules of {inside!r} are not consecutive")
    rates = {**outer, **dict(own)}
    return TuningBlock(
        tuple(Symbol(m, r, tuple(rates.get(s, 0.0) for s in sources.get(m, ())), bool(sources)) for m, r in own)
    )


def _parse_rate(text: str, positions: Mapping[str, int]) -> tuple[int, Rate]:
    module, _, rate = text.rpartition("@")
    if module not in positions:
        names = ", ".join(p for p in positions if not p.startswith("#")) or "(none)"
        raise WootzError(f"{text!r} is not MODULE@RATE with one of the modules {names}")
    if rate == SKIP_TEXT:
        return positions[module], SKIP
    try:
        rates = tuple(float(r) for r in rate.split("/"))
    except ValueError as error:
        raise WootzError(f"{text!r}: {rate!r} is not a rate") from error
    return positions[module], rates if len(rates) > 1 else rates[0]


class _Taps:
    """The teacher's tensors by the names that they had in the network, whole or with some of their channels."""

    def __init__(self, teacher: Graph):
        self._teacher = teacher
        self._whole = teacher.tensors()
        self._parts: dict[tuple[str, bytes], Tensor] = {}

    def channels(self, name: str, kept: np.ndarray) -> Tensor:
        """The tensor `name` with the channels of which `kept`, broadcastable to its shape, is true."""
        if kept.all():
            return self._whole[name]
        axes = varying_axes(kept)
        if len(axes) != 1:
            raise WootzError(f"the channels of {name!r} lie along several axes: end the module at another tensor")
        key = (name, kept.tobytes())
        if key not in self._parts:
            build = Builder(self._teacher, TEACHER)
            indices = build.constant(np.flatnonzero(first_along(kept, axes[0])), f"{name}.indices")
            self._parts[key] = build.op("Gather", self._whole[name], indices, hint=f"{name}.kept", axis=axes[0])
        return self._parts[key]


def in_inference_mode(model: Model) -> Graph:
    """The graph of a network in which `training-mode` would change nothing: constants and BatchNormalization are
    folded, the latter into Mul and Add where no convolution is before it, and Dropout is gone.

    Raises WootzError for a BatchNormalization whose operands are computed.
    """
    simplified = FoldConstants().apply(model).model
    teacher = FoldBatchNorm().apply(simplified).model.graph.copy()
    if any(node.op == "BatchNormalization" for node in teacher.nodes):
        annotate_shapes(teacher)
    build = Builder(teacher)
    for node in rewriting(teacher):
        build.prefix = f"{node.outputs[0].name}/"
        if node.op == "BatchNormalization":
            values = [_constant_values(t, node) for t in node.inputs[1:5]]
            scale, bias, mean, variance = (v.astype(np.float64) for v in values)
            factor = scale / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
            per_channel = (-1, *(1,) * (len(node.inputs[0].shape or ()) - 2))
            factor, shift = (v.reshape(per_channel).astype(values[0].dtype) for v in (factor, bias - mean * factor))
            scaled = build.op("Mul", node.inputs[0], build.constant(factor, "factor"), hint="scaled")
            replace_node(node, [build.op("Add", scaled, build.constant(shift, "shift"), hint="shifted")])
        elif node.op == "Dropout":
            replace_node(node, [build.op("Identity", node.inputs[0])])
    return teacher


def _constant_values(tensor: Tensor, node: Node) -> np.ndarray:
    constant = constant_behind(tensor)
    if constant is None:
        raise WootzError(
            f"{node.name or node.outputs[0].name}: its operand {tensor.name!r} is computed, not a constant"
        )
    return constant.values


def add_prefix(graph: Graph, prefix: str, keep: set[str]) -> None:
    """Puts `prefix` before the names of all nodes, and of all tensors but those in `keep`."""
    for name, tensor in graph.tensors().items():
        if name not in keep:
            tensor.name = prefix + name
    for node in graph.nodes:
        node.name = prefix + node.name if node.name else ""


def _reconstruction_loss(graph: Graph, targets: Sequence[Tensor], outputs: Sequence[Tensor], prefix: str) -> Tensor:
    build = Builder(graph, prefix)
    if len(outputs) == 1:
        loss = _mean_squared_difference(build, targets[0], outputs[0], "loss")
    else:
        errors = [_relative_error(build, *pair) for pair in zip(targets, outputs, strict=True)]
        total = build.op("Sum", *errors, hint="total")
        loss = build.op("Mul", total, build.constant(1 / len(errors), "share"), hint="loss")
    loss.dtype, loss.shape = targets[0].dtype or np.float32, ()
    return loss


def _relative_error(build: Builder, target: Tensor, output: Tensor) -> Tensor:
    """mean((O - O')²) / mean(O²), where the teacher's output O is all 0 divided by a very small number."""
    size = build.op("ReduceMean", build.op("Mul", target, target), keepdims=0)
    return build.op(
        "Div", _mean_squared_difference(build, target, output), build.op("Max", size, build.constant(SMALLEST_SIZE))
    )


def _mean_squared_difference(build: Builder, target: Tensor, output: Tensor, hint: str = "error") -> Tensor:
    difference = build.op("Sub", output, target, hint="difference")
    square = build.op("Mul", difference, difference, hint="square")
    return build.op("ReduceMean", square, keepdims=0, hint=hint)
