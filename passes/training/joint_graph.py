"""The training graph of a teacher and its students, and how much memory that takes."""

from __future__ import annotations

from collections.abc import Sequence

from wootz.passes.blocks.groups import Group, partition_blocks
from wootz.passes.ir.model import Model
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.legalize import Target
from wootz.passes.training.memory import training_memory
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import TEACHER, TeacherStudent, student_loss


def joint_training_graph(
    pruner: BlockPruner,
    blocks: Sequence[TuningBlock],
    solver: Solver,
    target: Target = "onnx",
    precision: Precision = "float32",
) -> Model:
    """The graph that pre-trains `blocks` together, the pruner's model being the teacher, which is not trained."""
    joint = TeacherStudent().join(pruner, blocks)
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    return build_training_graph(
        joint, solver, loss=None, losses=losses, frozen=TEACHER, target=target, precision=precision
    )


def group_memory(
    pruner: BlockPruner,
    blocks: Sequence[TuningBlock],
    solver: Solver,
    target: Target = "onnx",
    precision: Precision = "float32",
) -> int:
    """What pre-training `blocks` together takes, in bytes, at the solver's batch size."""
    return training_memory(joint_training_graph(pruner, blocks, solver, target, precision), solver.batch_size).total


def partition_by_memory(
    pruner: BlockPruner,
    blocks: Sequence[TuningBlock],
    solver: Solver,
    budget: int | None,
    parts: int = 1,
    target: Target = "onnx",
    precision: Precision = "float32",
) -> tuple[Group, ...]:
    """`partition_blocks` by what the groups' training graphs take; no budget: one group for each of `parts`."""

    def memory(group: Sequence[TuningBlock]) -> int:
        return 0 if budget is None else group_memory(pruner, group, solver, target, precision)

    return partition_blocks(blocks, memory, budget or 0, parts)
