"""Does pre-training help? Block errors before and after, and accuracies at step 0, for all modules and rates.

    python benchmarks/block_accuracy.py [--example examples/digits] [--data digits] [--rates 0.3,0.5,0.7] [--out FOLDER]

The example's network is trained (or taken from the store in the folder, when it was before), then every module is
pre-trained at every rate, as far as it can be pruned, with the example's pretrain.prototxt. Block errors are mean
squared differences to the teacher's output on up to 200 validation images of all classes, in inference mode, and stand
beside the mean square of that output. Accuracies are those of networks in which one module is pruned, and of those in
which all are, on the validation split: with the teacher's remaining weights (default), and assembled from the blocks.
Nothing is fine-tuned. Written are block_accuracy.md, .json and .png.

In a plain chain of layers (LeNet, VGG) a module loses inputs with the one before it. Its block is that of the network
in which all modules have the same rate, and "one module pruned" means this one and those that its input comes from. The
first module has no block: its filters compute what the teacher's do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.caffe.solver import read_solver
from wootz.passes.analysis.cost import parameters
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.identifier import symbols
from wootz.passes.ir.model import Model, tensor_shape, with_weights
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.subspace import Rate
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.teacher_student import (
    TeacherStudent,
    student_loss,
    student_prefix,
)
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.session import Device, evaluate
from wootz.runtime.store import Store
from wootz.runtime.tasks.task import Finished
from wootz.runtime.tasks.trainer import Trainer

VALIDATION_IMAGES = 200
BEFORE, AFTER, FULL = "#D55E00", "#0072B2", "#444444"


@dataclass(frozen=True)
class BlockRow:
    """One module of the network in which all have this rate. Errors are relative to the mean square of the teacher's
    output."""

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
        store=Store.open(out / "store"),
    )
    teacher_solver = next(f for n in ("teacher", "solver") if (f := example / f"{n}.prototxt").is_file())
    trained = usable(trainer, trainer.fine_tune(model, read_solver(teacher_solver), "full network"))
    pruner = BlockPruner.of(with_weights(model, trained.weights))
    blocks = {rate: blocks_at(pruner, rate) for rate in rates}
    wanted = list(dict.fromkeys(block for found in blocks.values() for block in found))
    if not wanted:
        sys.exit(
            "no module of this network needs pre-training: none can be pruned, or all compute what the teacher's do"
        )
    solver = read_solver(example / "pretrain.prototxt")
    found = trainer.pretrain(pruner, trainer.block_keys(pruner, wanted, solver), solver, f"{len(wanted)} tuning blocks")
    students = {block: usable(trainer, found[block]) for block in sorted(wanted, key=lambda b: b.modules)}
    return Findings(
        network=example.name,
        data=Path(data).name,
        full_accuracy=trainer.quality_of(pruner.model, trainer.dataset.validation),
        blocks=block_rows(trainer, pruner, students),
        networks=tuple(network_row(trainer, pruner, rate, [students[b] for b in blocks[rate]]) for rate in rates),
    )


def usable(trainer: Trainer, finished: Finished) -> Trained:
    outcome = trainer.store.get(finished.key)
    if not isinstance(outcome, Trained):
        sys.exit(finished.outcome.reason if isinstance(finished.outcome, Failed) else "the store has lost it")
    return outcome


def blocks_at(pruner: BlockPruner, rate: float) -> list[TuningBlock]:
    """The blocks of the network in which all modules have one rate: each module for itself."""
    configuration = tuple(rate if table.prunable else 0.0 for table in pruner.convolutions)
    found = symbols(configuration, pruner.input_sources.of_modules)
    return [TuningBlock((symbol,)) for symbol in found if symbol.is_pruned]


def block_rows(trainer: Trainer, pruner: BlockPruner, students: Mapping[TuningBlock, Trained]) -> tuple[BlockRow, ...]:
    feeds = {pruner.model.graph.inputs[0].name: sample_images(trainer)}
    joint = TeacherStudent().join(pruner, list(students))
    weights = {
        student_prefix(i) + name: values
        for i, student in enumerate(students.values())
        for name, values in student.weights.items()
    }
    before, after = evaluate(joint, feeds), evaluate(with_weights(joint, weights), feeds)
    targets = evaluate(tapped_at_exits(pruner), feeds)
    rows = []
    for i, (block, student) in enumerate(zip(students, map(pruner.student, students), strict=True)):
        (symbol,) = block.symbols
        module = pruner.modules[symbol.module]
        size = mean_square(targets[module.exit], student.kept(module.exit))
        error_before, error_after = (float(found[student_loss(i)]) / size for found in (before, after))
        default, assembled = accuracies(trainer, pruner, pruner.rates_of(block), [students[block]])
        rate = max(float(np.max(r)) for r in (symbol.rate, *symbol.input_rates))
        rows.append(BlockRow(module.name, rate, error_before, error_after, default, assembled))
    return tuple(rows)


def sample_images(trainer: Trainer) -> np.ndarray:
    """Validation images as the network takes them, spread over the split, so that all classes are among them."""
    validation = trainer.dataset.validation
    count = min(VALIDATION_IMAGES, len(validation))
    chosen = np.linspace(0, len(validation) - 1, count).astype(np.int64)
    sample = validation.part(chosen)
    (batch,) = ordered_batches(sample, trainer.test_transform, count)
    return np.asarray(batch.data)


def tapped_at_exits(pruner: BlockPruner) -> Model:
    """The unpruned network with the modules' exits as outputs."""
    model = pruner.model.copy()
    tensors = model.graph.tensors()
    model.graph.outputs = [tensors[module.exit] for module in pruner.modules]
    model.graph.cleanup()
    return model


def mean_square(values: np.ndarray, kept: np.ndarray) -> float:
    return float(np.mean(values[np.broadcast_to(kept, values.shape)] ** 2))


def network_row(trainer: Trainer, pruner: BlockPruner, rate: float, chosen: Sequence[Trained]) -> NetworkRow:
    rates: dict[str, Rate] = {table.module: rate for table in pruner.convolutions if table.prunable}
    left = parameters(pruner.materialize(pruner.plan(rates))) / parameters(pruner.model)
    return NetworkRow(rate, left, *accuracies(trainer, pruner, rates, chosen))


def accuracies(
    trainer: Trainer, pruner: BlockPruner, rates: Mapping[str, Rate], chosen: Sequence[Trained]
) -> tuple[float, float]:
    """Of the network pruned at `rates`: the default one, and the one with the blocks' weights."""
    default = assembled = pruner.materialize(pruner.plan(rates))
    for student in chosen:
        assembled = with_weights(assembled, student.weights)
    one, other = (trainer.quality_of(m, trainer.dataset.validation) for m in (default, assembled))
    return one, other


def as_markdown(found: Findings) -> str:
    """Tables: networks with all modules pruned, block errors, and accuracies with one module pruned."""
    rates = [n.rate for n in found.networks]
    networks = [
        f"| {n.rate:g} | {100 * n.parameters_left:.0f} % | {n.default_accuracy:.3f} | {n.block_trained_accuracy:.3f} |"
        for n in found.networks
    ]
    errors = by_module(found, lambda b: f"{b.error_before:.3f} → {b.error_after:.3f}")
    accuracies_found = by_module(found, lambda b: f"{b.default_accuracy:.3f} → {b.block_trained_accuracy:.3f}")
    tables = (
        table(["all modules at", "parameters left", "default", "block-trained"], networks),
        table(["block error", *(f"at {rate:g}" for rate in rates)], errors),
        table(["accuracy with one module pruned", *(f"at {rate:g}" for rate in rates)], accuracies_found),
    )
    title = f"`{found.network}` on `{found.data}`, full network {found.full_accuracy:.3f}."
    return "\n\n".join([title, *tables]) + "\n"


def table(columns: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}", *rows])


def by_module(found: Findings, cell: Callable[[BlockRow], str]) -> list[str]:
    """A row a module, a cell a rate; a dash where there is no block."""
    rows = []
    for module in dict.fromkeys(b.module for b in found.blocks):
        cells = {b.rate: cell(b) for b in found.blocks if b.module == module}
        rows.append(f"| {module} | {' | '.join(cells.get(n.rate, '-') for n in found.networks)} |")
    return rows


def draw(found: Findings, path: Path) -> None:
    """Left the block errors, in the middle accuracies with one module pruned, right with all of them."""
    rows = row_positions(found.blocks)
    figure = Figure(figsize=(12, max(3.0, 0.2 * rows[-1] + 1.4)), layout="constrained")
    errors, accuracy, networks = figure.subplots(1, 3, width_ratios=(5, 5, 3))
    draw_pairs(errors, rows, [(b.error_before, b.error_after) for b in found.blocks])
    draw_pairs(accuracy, rows, [(b.default_accuracy, b.block_trained_accuracy) for b in found.blocks])
    firsts = [b.module not in [other.module for other in found.blocks[:i]] for i, b in enumerate(found.blocks)]
    names = [
        f"{b.module}  {b.rate:g}" if first else f"{b.rate:g}" for b, first in zip(found.blocks, firsts, strict=True)
    ]
    errors.set_yticks(rows, names, fontsize=8)
    accuracy.set_yticks(rows, [])
    errors.set_xlim(left=0)
    errors.set_title("block error, share of the teacher's mean square", fontsize=9)
    accuracy.set_title("accuracy with this module pruned", fontsize=9)
    accuracy.axvline(found.full_accuracy, color=FULL, linestyle="--", linewidth=1)
    draw_networks(networks, found)
    figure.suptitle(
        f"{found.network}: before any fine-tuning, validation split of {found.data}", fontsize=10, fontweight="bold"
    )
    figure.legend(*networks.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def row_positions(blocks: Sequence[BlockRow]) -> list[float]:
    """One row a block, from top to bottom, and a gap between modules."""
    modules = list(dict.fromkeys(b.module for b in blocks))
    return [i + 0.8 * modules.index(b.module) for i, b in enumerate(blocks)]


def draw_pairs(axes: Axes, rows: Sequence[float], pairs: Sequence[tuple[float, float]]) -> None:
    """A line from before to after in each row."""
    before, after = zip(*pairs, strict=True)
    axes.hlines(rows, before, after, color="#bbbbbb", linewidth=1.5, zorder=1)
    axes.scatter(before, rows, s=24, color=BEFORE, zorder=2)
    axes.scatter(after, rows, s=24, color=AFTER, zorder=3)
    axes.grid(True, axis="x", color="#e5e5e5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_ylim(rows[-1] + 0.8, -0.8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_networks(axes: Axes, found: Findings) -> None:
    """Accuracy by rate, all modules pruned."""
    rates = [n.rate for n in found.networks]
    axes.plot(
        rates, [n.default_accuracy for n in found.networks], "o-", color=BEFORE, label="teacher's remaining weights"
    )
    axes.plot(rates, [n.block_trained_accuracy for n in found.networks], "o-", color=AFTER, label="pre-trained blocks")
    axes.axhline(found.full_accuracy, color=FULL, linestyle="--", linewidth=1, label="full network")
    axes.set_ylim(0, max(1.1 * found.full_accuracy, 0.1))
    axes.set_xticks(rates, [f"{n.rate:g}\n({100 * n.parameters_left:.0f} %)" for n in found.networks])
    axes.set_xlabel("rate (parameters left)", fontsize=8)
    axes.set_title("accuracy with all modules pruned", fontsize=9)
    axes.grid(True, axis="y", color="#e5e5e5", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


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
