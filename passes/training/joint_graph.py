"""The training graph of a teacher and its students, by the pipelines `block-training` and `block-training-float16`, and
how much memory it takes."""

from __future__ import annotations

from collections.abc import Sequence

from wootz.passes.base import Pass
from wootz.passes.blocks.groups import Group, partition_blocks
from wootz.passes.ir.model import Model
from wootz.passes.pipeline import Observers, run_pipeline
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.legalize import Target
from wootz.passes.training.memory import training_memory
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.training_graph import data_inputs, training_settings, with_settings
from wootz.passes.transforms.teacher_student import TEACHER, format_blocks, student_loss


def joint_training_graph(
    pruner: BlockPruner,
    blocks: Sequence[TuningBlock],
    solver: Solver,
    target: Target = "onnx",
    precision: Precision = "float32",
    verify_each: bool = False,
    observers: Observers | None = None,
    own_rates: bool = False,
) -> Model:
    """The graph that pre-trains `blocks` together, the pruner's model being the teacher, which is not trained.

    With `own_rates` the learning rate of each block can be made to fade (`apply-optimizer`). `verify_each` and
    `observers` are those of `run_pipeline`. Raises PassError for what a pass refuses.
    """
    passes = joint_training_pipeline(pruner, blocks, solver, target, precision, own_rates)
    return run_pipeline(pruner.model, passes, verify_each, observers).model


def joint_training_pipeline(
    pruner: BlockPruner,
    blocks: Sequence[TuningBlock],
    solver: Solver,
    target: Target = "onnx",
    precision: Precision = "float32",
    own_rates: bool = False,
) -> tuple[Pass, ...]:
    """The passes of the pipeline `block-training`, or with precision="float16" of `block-training-float16`."""
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    settings = training_settings(solver, data_inputs(pruner.model), losses, (), TEACHER, target)
    settings["apply-optimizer"] = {**settings["apply-optimizer"], "own_rates": own_rates}
    criterion = pruner.planner.criterion
    settings["teacher-student"] = {"blocks": format_blocks(blocks, pruner), "criterion": criterion, "pruner": pruner}
    return with_settings("block-training" if precision == "float32" else "block-training-float16", settings)


def group_memory(pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver) -> int:
    """What pre-training `blocks` together takes, in bytes, at the solver's batch size."""
    return training_memory(joint_training_graph(pruner, blocks, solver), solver.batch_size).total


def partition_by_memory(
    pruner: BlockPruner, blocks: Sequence[TuningBlock], solver: Solver, budget: int | None
) -> tuple[Group, ...]:
    """`partition_blocks` by what the groups' training graphs take; no budget: one group."""

    def memory(group: Sequence[TuningBlock]) -> int:
        return 0 if budget is None else group_memory(pruner, group, solver)

    return partition_blocks(blocks, memory, budget or 0)
