"""Does pre-training help? Block errors before and after, and accuracies at step 0, for all modules and rates.

    python benchmarks/block_accuracy.py [--example examples/digits] [--data digits] [--rates 0.3,0.5,0.7] [--out FOLDER]

The example's network is trained (or taken from the store in the folder, when it was before), then every module is
pre-trained at every rate, as far as it can be pruned, with the example's pretrain.prototxt. Block errors are mean
squared differences to the teacher's output on up to 200 validation images, in inference mode, and stand beside the mean
square of that output. Accuracies are those of networks in which one module is pruned, and of those in which all are, on
the validation split: with the teacher's remaining weights (default), and assembled from the blocks. Nothing is
fine-tuned. Written are block_accuracy.md, .json and .png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.caffe.solver import read_solver
from wootz.passes.analysis.cost import parameters
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.model import Model, tensor_shape
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.pruning.input_sources import input_sources
from wootz.passes.transforms.assemble import with_weights
from wootz.passes.transforms.prune_blocks import BlockPruner
from wootz.passes.transforms.teacher_student import TeacherStudent, student_loss, student_prefix
from wootz.runtime.batches import normalize
from wootz.runtime.dataset import load_dataset
from wootz.runtime.session import Device, evaluate
from wootz.runtime.store import ResultStore
from wootz.runtime.trainer import TrainedBlock, Trainer
from wootz.tools.progress import ConsoleProgress

VALIDATION_IMAGES = 200
BEFORE, AFTER = "#D55E00", "#0072B2"


@dataclass(frozen=True)
class BlockRow:
    """One module at one rate. Errors are relative to the mean square of the teacher's output."""

    module: str
    rate: float
    error_before: float
    error_after: float
    default_accuracy: float
    block_trained_accuracy: float


@dataclass(frozen=True)
class NetworkRow:
    """All modules at one rate."""

    rate: float
    parameters_left: float
    default_accuracy: float
    block_trained_accuracy: float


@dataclass(frozen=True)
class Findings:
    network: str
    data: str
    full_accuracy: float
    blocks: tuple[BlockRow, ...]
    networks: tuple[NetworkRow, ...]


def survey(example: Path, data: str, rates: Sequence[float], out: Path, threads: int) -> Findings:
    """Trains and measures everything."""
    imported = import_caffe(example / "net.prototxt")
    model = replace(imported.model, modules=find_modules(imported.model)[0])
    channels, height, width = (int(d) for d in (tensor_shape(model.graph.inputs[0]) or ())[1:])
    trainer = Trainer(
        dataset=load_dataset(data, (channels, height, width), imported.train_transform.crop_size),
        train_transform=imported.train_transform,
        test_transform=imported.test_transform,
        target="onnx",
        device=Device(threads=threads),
        store=ResultStore(out / "store"),
        progress=ConsoleProgress(Console()),
    )
    teacher_solver = next(f for n in ("teacher", "solver") if (f := example / f"{n}.prototxt").is_file())
    trained = trainer.fine_tune(model, read_solver(teacher_solver), "full network")
    pruner = BlockPruner.of(with_weights(model, trained.weights))
    if input_sources(pruner).of_modules:
        sys.exit("the network is a plain chain: its modules can't be pruned one by one")
    prunable = [i for i, table in enumerate(pruner.convolutions) if table.prunable]
    blocks = [TuningBlock((Symbol(i, rate),)) for i in prunable for rate in rates]
    solver = read_solver(example / "pretrain.prototxt")
    students = trainer.stored_blocks(pruner, blocks, solver)
    missing = [block for block in blocks if block not in students]
    if missing:
        students |= {b.block: b for b in trainer.pretrain(pruner, missing, solver, f"{len(missing)} tuning blocks")}
    return Findings(
        network=example.name,
        data=Path(data).name,
        full_accuracy=trainer.test_accuracy(pruner.model, trainer.dataset.validation),
        blocks=block_rows(trainer, pruner, students),
        networks=tuple(network_row(trainer, pruner, students, prunable, rate) for rate in rates),
    )


def block_rows(
    trainer: Trainer, pruner: BlockPruner, students: Mapping[TuningBlock, TrainedBlock]
) -> tuple[BlockRow, ...]:
    images = normalize(trainer.dataset.validation.images[:VALIDATION_IMAGES], trainer.test_transform)
    joint = TeacherStudent().join(pruner, list(students))
    weights = {
        student_prefix(i) + name: values
        for i, student in enumerate(students.values())
        for name, values in student.weights.items()
    }
    feeds = {joint.graph.inputs[0].name: images}
    before, after = evaluate(joint, feeds), evaluate(with_weights(joint, weights), feeds)
    rows = []
    for i, block in enumerate(students):
        (symbol,) = block.symbols
        module = pruner.modules[symbol.module]
        size = mean_square(pruner.model, module.exit, feeds)
        default, assembled = accuracies(trainer, pruner, {symbol.module: students[block]})
        errors = (float(found[student_loss(i)]) / size for found in (before, after))
        rows.append(BlockRow(module.name, float(np.max(symbol.rate)), *errors, default, assembled))
    return tuple(rows)


def network_row(
    trainer: Trainer,
    pruner: BlockPruner,
    students: Mapping[TuningBlock, TrainedBlock],
    prunable: Sequence[int],
    rate: float,
) -> NetworkRow:
    chosen = {i: students[TuningBlock((Symbol(i, rate),))] for i in prunable}
    default, assembled = accuracies(trainer, pruner, chosen)
    network = pruned(pruner, chosen)
    left = parameters(network) / parameters(pruner.model)
    return NetworkRow(rate, left, default, assembled)


def accuracies(trainer: Trainer, pruner: BlockPruner, chosen: Mapping[int, TrainedBlock]) -> tuple[float, float]:
    """Of the default network and of the one assembled from blocks."""
    default = pruned(pruner, chosen)
    assembled = default
    for student in chosen.values():
        assembled = with_weights(assembled, student.weights)
    one, other = (trainer.test_accuracy(m, trainer.dataset.validation) for m in (default, assembled))
    return one, other


def pruned(pruner: BlockPruner, chosen: Mapping[int, TrainedBlock]) -> Model:
    rates = {pruner.modules[i].name: student.block.symbols[0].rate for i, student in chosen.items()}
    return pruner.materialize(pruner.plan(rates))


def mean_square(model: Model, tensor: str, feeds: Mapping[str, np.ndarray]) -> float:
    tapped = model.copy()
    tapped.graph.outputs = [tapped.graph.tensors()[tensor]]
    tapped.graph.cleanup()
    return float(np.mean(evaluate(tapped, feeds)[tensor] ** 2))


def as_markdown(found: Findings) -> str:
    """Two tables: one row a rate with all modules pruned, one row a module and rate."""
    lines = [
        f"`{found.network}` on `{found.data}`, full network {found.full_accuracy:.3f}.",
        "",
        "| all modules at | parameters left | default | block-trained |",
        "| --- | --- | --- | --- |",
        *(
            f"| {n.rate:g} | {100 * n.parameters_left:.0f} % | {n.default_accuracy:.3f} "
            f"| {n.block_trained_accuracy:.3f} |"
            for n in found.networks
        ),
        "",
        "| module | rate | block error before | after | default | block-trained |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {b.module} | {b.rate:g} | {b.error_before:.4f} | {b.error_after:.4f} | {b.default_accuracy:.3f} "
            f"| {b.block_trained_accuracy:.3f} |"
            for b in found.blocks
        ),
    ]
    return "\n".join(lines) + "\n"


def draw(found: Findings, path: Path) -> None:
    """Left the block errors, right the accuracies at step 0; a line from before to after for each block."""
    figure = Figure(figsize=(11, max(3.0, 0.22 * len(found.blocks) + 1.2)), layout="constrained")
    errors, accuracy = figure.subplots(1, 2, sharey=True)
    rows = range(len(found.blocks))
    for axes, before, after in (
        (errors, [b.error_before for b in found.blocks], [b.error_after for b in found.blocks]),
        (accuracy, [b.default_accuracy for b in found.blocks], [b.block_trained_accuracy for b in found.blocks]),
    ):
        axes.hlines(rows, before, after, color="#bbbbbb", linewidth=1.2)
        axes.scatter(before, rows, s=24, color=BEFORE, label="teacher's remaining weights")
        axes.scatter(after, rows, s=24, color=AFTER, label="pre-trained")
        axes.grid(True, axis="x", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    errors.set_xlim(left=0)
    errors.set_yticks(list(rows), [f"{b.module} at {b.rate:g}" for b in found.blocks], fontsize=7)
    errors.invert_yaxis()
    errors.set_xlabel("block error, share of the teacher's mean square")
    accuracy.axvline(found.full_accuracy, color="#444444", linestyle="--", linewidth=1, label="full network")
    accuracy.set_xlabel("validation accuracy with this module pruned, not fine-tuned")
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=144)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", type=Path, default=Path("examples/digits"), help="folder with net.prototxt, …")
    parser.add_argument("--data", default="digits", help="as for wootz run")
    parser.add_argument("--rates", default="0.3,0.5,0.7")
    parser.add_argument("--out", type=Path, default=Path("runs/block_accuracy"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    rates = [float(rate) for rate in options.rates.split(",")]
    found = survey(options.example, options.data, rates, options.out, options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    text = as_markdown(found)
    (options.out / "block_accuracy.md").write_text(text)
    (options.out / "block_accuracy.json").write_text(json.dumps(asdict(found), indent=1))
    draw(found, options.out / "block_accuracy.png")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
