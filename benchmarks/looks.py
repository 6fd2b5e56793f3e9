"""What a look at an assembled network takes, what new statistics change, and what a look says of fine-tuning.

    python benchmarks/looks.py network.onnx DATA [--networks 16] [--rates 0.3,0.5,0.7] [--pretrain 100] [--steps 60]

The network takes ImageNet's normalised RGB images, and its modules can be pruned one by one. Each module is pre-trained
at each rate, all in one graph; random networks are assembled from these blocks. Of each is measured, on the validation
split, the accuracy with the statistics that its blocks were left with; with statistics as they are measured anew; in a
look, which compares these to the full network's; in a look at the network with the teacher's weights; and after
fine-tuning. And of looks, how long each part takes. Everything trained is in the store of --out, so that the same
command goes on where the last one ended. Rank correlations are Spearman's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.identifier import symbols
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, constants, with_weights
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.sampling import sample_subspace
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.batch_statistics import batch_statistics
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.outcome import Failed
from wootz.runtime.recalibration import Statistics, calibration_batches, measured_statistics
from wootz.runtime.session import Device, InferenceSession
from wootz.runtime.store import Store
from wootz.runtime.tasks.trainer import Trainer

IMAGENET = InputTransform(
    mean=(123.675, 116.28, 103.53), scale=(1 / 58.395, 1 / 57.12, 1 / 57.375), channel_order="RGB"
)
PRETRAINING = Solver(base_lr=0.02, momentum=0.9, batch_size=64)
FINE_TUNING = Solver(base_lr=0.003, momentum=0.9, weight_decay=1e-4, batch_size=64)
KINDS = ("blocks' own statistics", "as measured", "a look", "a look without blocks", "fine-tuned")


@dataclass
class Clock:
    """The seconds of each part, added up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin


def parts_of_a_look(trainer: Trainer, network: Model, clock: Clock) -> Statistics:
    """A look as `Trainer.look` takes it, part by part; gives the statistics that were measured."""
    with clock("statistics: graph"):
        program = batch_statistics(network, trainer.target)
    with clock("statistics: session"):
        measuring = InferenceSession(program, trainer.device)
    with clock("statistics: running"):
        for data in calibration_batches(trainer.dataset.train, trainer.test_transform):
            measuring.outputs(data)
    with clock("evaluation: session"):
        session = InferenceSession(network, trainer.device)
    with clock("evaluation: running"):
        trainer.measured(session.outputs, trainer.dataset.validation, None)
    (measured,) = measured_statistics([network], trainer.dataset.train, trainer.test_transform, trainer.device)
    return measured


def pretrained(
    trainer: Trainer, pruner: BlockPruner, rates: list[float], steps: int
) -> Mapping[TuningBlock, Mapping[str, np.ndarray]]:
    solver = replace(PRETRAINING, max_iter=steps)
    configurations = [tuple(rate if t.prunable else 0.0 for t in pruner.convolutions) for rate in rates]
    found = (symbol for configuration in configurations for symbol in symbols(configuration))
    blocks = [TuningBlock((symbol,)) for symbol in found if symbol.is_pruned]
    trained = trainer.pretrain(pruner, trainer.block_keys(pruner, blocks, solver), solver, "blocks")
    assert not any(isinstance(finished.outcome, Failed) for finished in trained.values())
    return {block: trainer.stored_weights(finished.key) or {} for block, finished in trained.items()}


def ranks_agree(a: list[float], b: list[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""

    def ranks(values: list[float]) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def part(dataset: Dataset, train: int, validation: int) -> Dataset:
    def chosen(count: int, of: int) -> np.ndarray:
        return np.unique(np.linspace(0, of - 1, count).astype(np.int64))

    images, held_out = dataset.train, dataset.test or dataset.validation
    return replace(
        dataset,
        train=images.part(chosen(train, len(images))),
        validation=held_out.part(chosen(validation, len(held_out))),
        test=None,
        source=None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("data")
    parser.add_argument("--networks", type=int, default=16)
    parser.add_argument("--rates", default="0.3,0.5,0.7")
    parser.add_argument("--pretrain", type=int, default=100, metavar="STEPS")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--train", type=int, default=10000, metavar="IMAGES")
    parser.add_argument("--validation", type=int, default=1000, metavar="IMAGES")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/looks"))
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    model = load(options.network)
    model = replace(model, modules=find_modules(model)[0])
    trainer = Trainer(
        dataset=part(load_dataset(options.data, (3, 32, 32)), options.train, options.validation),
        train_transform=replace(IMAGENET, mirror=True),
        test_transform=IMAGENET,
        target="onnx",
        device=Device(threads=options.threads),
        store=Store.open(options.out / "store"),
    )
    validation = trainer.dataset.validation
    pruner = BlockPruner.of(model)
    print(f"the full network: {trainer.quality_of(model, validation):.4f}")
    weights = pretrained(trainer, pruner, rates, options.pretrain)
    modules = tuple(module.name for module in pruner.modules)
    clock = Clock()
    rows = []
    beyond = trainer.statistics_offsets(model)
    materializer = pruner.materializer.with_weights(with_weights(model, beyond))
    print("   ".join(KINDS))
    for configuration in sample_subspace(modules, [0.0, *rates], options.networks, seed=0).configurations:
        with clock("assembling"):
            plan = pruner.plan(dict(zip(modules, configuration, strict=True)))
            bare = pruner.materialize(plan)
            network = bare
            for symbol in symbols(configuration):
                network = with_weights(network, weights.get(TuningBlock((symbol,)), {}))
            left = constants(materializer.materialize(plan).graph)
            own = {name: left[name] for name in beyond}
        measured = parts_of_a_look(trainer, network, clock)
        finished = trainer.fine_tune(network, replace(FINE_TUNING, max_iter=options.steps), "network")
        assert not isinstance(finished.outcome, Failed)
        networks = [network, with_weights(network, measured)]
        looks = [look.quality for look in trainer.looks([network, bare], [own, own])]
        accuracies = [trainer.quality_of(one, validation) for one in networks]
        rows.append([*accuracies, *looks, float(finished.outcome["curve"][-1][1])])
        print("   ".join(f"{value:{len(kind)}.4f}" for kind, value in zip(KINDS, rows[-1], strict=True)), flush=True)
    for name, seconds in clock.seconds.items():
        print(f"{name:20} {seconds / len(rows):.3f} s a network")
    *columns, final = (list(column) for column in zip(*rows, strict=True))
    for kind, column in zip(KINDS, columns, strict=False):
        agreement = ranks_agree(column, final)
        print(f"{kind:22} mean {np.mean(column):.4f}, rank correlation with fine-tuned ones {agreement:.3f}")


if __name__ == "__main__":
    main()
