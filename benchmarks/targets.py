"""Should pruned networks learn from targets, from the full network, or from both? Two recipes of examples/tasks.

    python benchmarks/targets.py [--out FOLDER] [--only PART] [--networks 3] [--seeds 2] [--effort normal]

    segmentation       maps of classes: the cross-entropy of each pixel, judged by the mean intersection over union
    super_resolution   images: the mean squared difference, judged by the peak signal-to-noise ratio

The full networks are trained once, from scratch, and kept in --out; they come with their weights, as those of a run do.
Networks, one of each rate in all modules and further random ones, begin with the full network's remaining weights
(default) and with blocks that are pre-trained once, and are fine-tuned by the recipe of `wootz run`: from the full
network alone, and from it with each of --shares and the targets, share 0 being these alone. All of one network and seed
see the same batches; qualities are of the test images, by the weights that were best on the validation images. Printed
are the mean differences to the full network alone, with the standard error over networks and seeds. Everything trained
is in the store of --out: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from distillation import STARTS, Setting, pretrained
from machine import machine

from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import with_weights
from wootz.passes.plan.lesson import Lesson
from wootz.passes.plan.sampling import sample_subspace
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Configuration
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime.data.python_data import from_python
from wootz.runtime.defaults import BATCH_SIZE, Circumstances, fine_tuning_solver
from wootz.runtime.outcome import Failed
from wootz.runtime.quality.own import own_quality
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.targets import losses_for
from wootz.runtime.tasks.trainer import Trainer

METRICS = {"segmentation": "mean_iou", "super_resolution": "psnr"}
RATES = (0.3, 0.5, 0.7)
ALONE = Lesson((), distill=1.0)


@dataclass(frozen=True)
class Outcome:
    """The quality on the test images of one fine-tuned network."""

    start: str
    configuration: Configuration
    seed: int
    lesson: Lesson
    quality: float


def opened(recipe: Any, metric: str, file: Path) -> Setting:
    """The full network is trained where it isn't there yet."""
    splits = recipe.data()
    if not file.exists():
        save(recipe.full_network(*splits["train"]), str(file))
    model = load(file)
    transform = InputTransform.from_json(model.metadata[TRANSFORM_KEY])
    trainer = Trainer(
        dataset=from_python(splits, recipe.__name__, 0),
        train_transform=transform,
        test_transform=transform,
        target="onnx",
        device=Device(threads=1),
        store=Store.open(file.parent / "store"),
        quality=own_quality(getattr(recipe, metric)),
    )
    pruner = BlockPruner.of(replace(model, modules=find_modules(model)[0]))
    return Setting(trainer, pruner, replace(pruner.model, modules=pruner.modules))


def solver_of(setting: Setting, effort: Any) -> Solver:
    dataset = setting.trainer.dataset
    normalizes = any(node.op == "BatchNormalization" for node in setting.pruner.model.graph.nodes)
    sizes = len(dataset.train), len(dataset.validation), BATCH_SIZE
    return fine_tuning_solver(Circumstances(*sizes, normalizes=normalizes, effort=effort))


def lessons_of(setting: Setting, shares: Sequence[float]) -> list[Lesson]:
    """From the full network alone first."""
    targets = setting.trainer.dataset.train.labels
    assert targets is not None
    losses = losses_for(setting.pruner.model, targets).losses
    return [ALONE, *(Lesson(losses, share) for share in shares)]


def tuned(
    setting: Setting,
    configurations: Sequence[Configuration],
    lessons: Sequence[Lesson],
    starts: Sequence[str],
    seeds: int,
    solver: Solver,
) -> Iterator[Outcome]:
    """Seed by seed, so that what is there after a while has something of everything."""
    trainer, test = setting.trainer, setting.trainer.dataset.test
    assert test is not None
    blocks = pretrained(setting, configurations, solver.max_iter)
    for seed in range(seeds):
        for configuration in configurations:
            for lesson in lessons:
                for start in starts:
                    network = setting.network(configuration, blocks if start == "block-trained" else {})
                    teacher = setting.teacher if lesson.needs_teacher else None
                    steps = replace(solver, random_seed=seed)
                    found = trainer.fine_tune(network, steps, start, lesson=lesson, teacher=teacher)
                    if isinstance(found.outcome, Failed):
                        raise SystemExit(found.outcome.reason)
                    done = with_weights(network, trainer.stored_weights(found.key) or {})
                    yield Outcome(start, configuration, seed, lesson, trainer.quality_of(done, test))


def gains(outcomes: Sequence[Outcome], start: str, lesson: Lesson) -> np.ndarray:
    """The differences to the full network alone, a network and seed each."""

    def of(wanted: Lesson) -> dict[tuple[Configuration, int], float]:
        chosen = (o for o in outcomes if o.start == start and o.lesson == wanted)
        return {(o.configuration, o.seed): o.quality for o in chosen}

    alone, taught = of(ALONE), of(lesson)
    return np.array([taught[key] - alone[key] for key in taught.keys() & alone.keys()])


def rows(outcomes: Sequence[Outcome], lessons: Sequence[Lesson], starts: Sequence[str]) -> Iterator[str]:
    yield "| start | learned from | trainings | quality | gain | better |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for start in starts:
        for lesson in lessons:
            found = gains(outcomes, start, lesson)
            quality = np.mean([o.quality for o in outcomes if o.start == start and o.lesson == lesson])
            error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else float("nan")
            gain = "" if lesson == ALONE else f"{np.mean(found):+.4f} ± {error:.4f}"
            better = "" if lesson == ALONE else f"{np.sum(found > 0)}"
            yield f"| {start} | {lesson.text} | {len(found)} | {quality:.4f} | {gain} | {better} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/targets"))
    parser.add_argument("--only", default="", help="part of the recipes' names")
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shares", default="0.9,0.5,0", help="of the full network, beside that network alone")
    parser.add_argument("--starts", default=",".join(STARTS))
    parser.add_argument("--effort", choices=["quick", "normal", "thorough"], default="normal")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    for name, metric in METRICS.items():
        if options.only not in name:
            continue
        setting = opened(importlib.import_module(f"wootz.examples.tasks.{name}"), metric, options.out / f"{name}.onnx")
        modules = tuple(module.name for module in setting.pruner.modules)
        uniform = [tuple(rate if t.prunable else 0.0 for t in setting.pruner.convolutions) for rate in RATES]
        random = sample_subspace(modules, RATES, 2 * options.networks, seed=0).configurations
        configurations = list(dict.fromkeys([*uniform, *random]))[: options.networks]
        solver = solver_of(setting, options.effort)
        outcomes = []
        lessons = lessons_of(setting, [float(share) for share in options.shares.split(",")])
        starts = options.starts.split(",")
        for outcome in tuned(setting, configurations, lessons, starts, options.seeds, solver):
            outcomes.append(outcome)
            print(f"{outcome.start}, {outcome.lesson.text}, seed {outcome.seed}: {outcome.quality:.4f}", flush=True)
        test = setting.trainer.dataset.test
        assert test is not None
        full = setting.trainer.quality_of(setting.teacher, test)
        print(f"\n{name}, {metric}, {solver.max_iter} steps; the full network: {full:.4f}\n")
        print("\n".join(rows(outcomes, lessons, starts)), flush=True)


if __name__ == "__main__":
    main()
