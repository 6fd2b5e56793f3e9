"""Does a pruned detector learn more from what boxes and probabilities are decoded from than from these themselves?

    python benchmarks/undecoded.py detection.onnx [--seeds 2] [--steps 150] [--temperature 2]

The full network is that of examples/tasks/detection.py. Its modules are pre-trained at each rate, once. Five networks
are fine-tuned without labels from the teacher's remaining weights (default) and from these blocks: with a loss between
the outputs of both networks, and with one between what these are decoded from (`distill`). Both see the same batches.
Printed are mean average precisions on the validation images: before, after the last step, and with the best test's
weights, which a run keeps; differences with the standard error over networks and seeds; and, over all trained networks,
the rank correlation (Spearman's) of the mean average precision with OutputError, and with the same error of what
outputs are decoded from. Everything trained is in the store of --out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from distillation import STARTS, Setting, pretrained
from machine import machine
from scipy.stats import spearmanr

from wootz.examples.tasks.detection import data, mean_average_precision
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.plan.lesson import Lesson
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Configuration
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.decoding import Decoding
from wootz.passes.training.distill import Distill
from wootz.passes.training.trainable_part import TrainablePart
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.python_data import from_python
from wootz.runtime.outcome import Failed
from wootz.runtime.quality.own import own_quality
from wootz.runtime.quality.quality import OUTPUT_ERROR, Outputs
from wootz.runtime.session import Device, InferenceSession
from wootz.runtime.store import Store
from wootz.runtime.tasks.recipe import Digests
from wootz.runtime.tasks.trainer import Trainer

CONFIGURATIONS = ((0.7, 0.7, 0.7), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3), (0.3, 0.3, 0.5), (0.5, 0.7, 0.7))
FINE_TUNING = Solver(
    base_lr=0.005, lr_policy="cosine", momentum=0.9, weight_decay=5e-4, warmup_iter=8, batch_size=32, test_interval=25
)
"""That of `wootz run --effort quick`."""
OUTPUTS, UNDECODED = "from the outputs", "from before decoding"


@dataclass(frozen=True)
class FromOutputs(Trainer):
    """Trains towards the outputs as they are. Its store is its own: keys don't tell."""

    def distillation(self, lesson: Lesson, teacher: Model) -> Distill:
        return replace(super().distillation(lesson, teacher), decoded=True)


@dataclass(frozen=True)
class Tuned:
    """What a fine-tuning made of a network: mean average precisions before, after the last step and of the weights that
    are kept, and their errors, of the outputs and before decoding."""

    start: str
    lesson: str
    configuration: Configuration
    seed: int
    before: float
    last: float
    kept: float
    error: float
    error_before_decoding: float


def opened(network: Path, out: Path) -> Setting:
    model = TrainablePart().apply(load(network)).model
    transform = InputTransform.from_json(model.metadata[TRANSFORM_KEY])
    trainer = Trainer(
        dataset=from_python(data, "data", 0),
        train_transform=transform,
        test_transform=transform,
        target="onnx",
        device=Device(threads=1),
        store=Store.open(out / "store"),
        quality=own_quality(mean_average_precision),
    )
    pruner = BlockPruner.of(replace(model, modules=find_modules(model)[0]))
    return Setting(trainer, pruner, replace(pruner.model, modules=pruner.modules))


class Judge:
    """Compares networks with the full one on the validation images."""

    def __init__(self, setting: Setting):
        self._trainer = setting.trainer
        graph = setting.teacher.graph
        self._sources = [source.tensor.name for t in graph.outputs for source in Decoding(graph).sources(t)]
        self._full = self._all_of(setting.teacher)

    def errors(self, network: Model) -> tuple[float, float]:
        """OutputError, and the same of what the outputs are decoded from."""
        found = self._all_of(network)
        sources = set(self._sources)
        return self._error(found, found.keys() - sources), self._error(found, sources)

    def _all_of(self, network: Model) -> Outputs:
        tapped = infer_shapes(network.copy())
        tensors = tapped.graph.tensors()
        tapped.graph.outputs += [tensors[name] for name in self._sources]
        split, transform = self._trainer.dataset.validation, self._trainer.test_transform
        (batch,) = ordered_batches(split, transform, len(split))
        return InferenceSession(tapped, self._trainer.device).outputs(batch.data)

    def _error(self, found: Outputs, names: set[str]) -> float:
        tally = OUTPUT_ERROR.begin()
        tally.add(found, {name: self._full[name] for name in names}, None)
        return tally.value


def tuned(setting: Setting, out: Path, seeds: int, steps: int, temperature: float) -> Iterator[Tuned]:
    blocks = pretrained(setting, CONFIGURATIONS, 300)
    lesson, judge = Lesson((), distill=1.0, temperature=temperature), Judge(setting)
    own = {field.name: getattr(setting.trainer, field.name) for field in fields(Trainer)}
    elsewhere = {"store": Store.open(out / "store-outputs"), "digests": Digests()}
    trainers = {OUTPUTS: FromOutputs(**{**own, **elsewhere}), UNDECODED: setting.trainer}
    for seed in range(seeds):
        solver = replace(FINE_TUNING, max_iter=steps, random_seed=seed)
        for configuration in CONFIGURATIONS:
            for start in STARTS:
                network = setting.network(configuration, blocks if start == "block-trained" else {})
                for name, trainer in trainers.items():
                    found = trainer.fine_tune(network, solver, start, lesson=lesson, teacher=setting.teacher)
                    if isinstance(found.outcome, Failed):
                        raise SystemExit(found.outcome.reason)
                    curve = [value for _, value in found.outcome["curve"]]
                    weights = trainer.stored_weights(found.key) or {}
                    errors = judge.errors(with_weights(network, weights))
                    yield Tuned(start, name, configuration, seed, curve[0], curve[-1], max(curve), *errors)


def printed(found: Sequence[Tuned]) -> Iterator[str]:
    yield "| start | lesson | before | after the last step | kept | trainings that end worse than they began |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for start in STARTS:
        by_lesson = {name: [t for t in found if (t.start, t.lesson) == (start, name)] for name in (OUTPUTS, UNDECODED)}
        for name, rows in by_lesson.items():
            means = " | ".join(f"{np.mean([getattr(t, n) for t in rows]):.3f}" for n in ("before", "last", "kept"))
            yield f"| {start} | {name} | {means} | {sum(t.last < t.before for t in rows)} of {len(rows)} |"
        yield f"| {start} | difference | | {' | '.join(differences(by_lesson))} | |"


def differences(by_lesson: Mapping[str, Sequence[Tuned]]) -> Iterator[str]:
    for name in ("last", "kept"):
        outputs, undecoded = (np.array([getattr(t, name) for t in by_lesson[n]]) for n in (OUTPUTS, UNDECODED))
        gains = undecoded - outputs
        yield f"{gains.mean():+.3f} ± {gains.std(ddof=1) / np.sqrt(len(gains)):.3f}"


def rank_correlation(found: Sequence[Tuned], error: str) -> float:
    return float(spearmanr([-getattr(t, error) for t in found], [t.kept for t in found]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path("build/undecoded"))
    options = parser.parse_args()
    print(machine())
    setting = opened(options.network, options.out)
    found: list[Tuned] = []
    for one in tuned(setting, options.out, options.seeds, options.steps, options.temperature):
        found.append(one)
        print(one, flush=True)
    print("\n".join(["", *printed(found), ""]))
    for error in ("error", "error_before_decoding"):
        print(f"rank correlation of {error}: {rank_correlation(found, error):.3f} over {len(found)} networks")


if __name__ == "__main__":
    main()
