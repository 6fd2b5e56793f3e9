"""Does it help pruned networks to learn from the full one, and what does a step of that cost?

    python benchmarks/distillation.py network.onnx DATA [--networks 6] [--seeds 2] [--steps 300] [--json]
    python benchmarks/distillation.py examples/flowers DATA

The full network is an ONNX file, for ImageNet's normalised RGB images unless it says something else, or a folder with
net.prototxt and teacher.prototxt, from which it is trained. Its modules are pre-trained at each rate, in one graph,
once. Networks, one of each rate in all modules and further random ones, are fine-tuned from the teacher's remaining
weights (default) and from these blocks, by the recipe of `wootz run`: for each seed with labels alone, and with each
share of distillation and temperature, share 1 being without labels; and, with --features, with a feature loss besides.
All of one network and seed see the same batches, so that their accuracies are compared in pairs: printed are the mean
differences to labels alone, with the standard error over networks and seeds. Steps are timed in turns, with the full
network in the graph and with what it says given; --only-steps does nothing else. Everything trained is in the store of
--out: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.caffe.solver import read_solver
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.identifier import symbols
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, tensor_shape, with_weights
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.passes.plan.sampling import sample_subspace
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.subspace import Configuration
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.legalize import Target
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.outcome import Failed
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.trainer import Trainer
from wootz.runtime.teacher_outputs import TEACHER_BATCH, TeacherOutputs, teacher_outputs

IMAGENET = InputTransform(
    mean=(123.675, 116.28, 103.53), scale=(1 / 58.395, 1 / 57.12, 1 / 57.375), channel_order="RGB"
)
PRETRAINING = Solver(type=SolverType.ADAM, momentum=0.9, base_lr=0.008, lr_policy="cosine", batch_size=32)
FINE_TUNING = Solver(base_lr=0.005, lr_policy="cosine", momentum=0.9, weight_decay=5e-4, warmup_iter=15, batch_size=32)
STARTS = ("default", "block-trained")
TIMED_STEPS, TURNS = 10, 5


@dataclass(frozen=True)
class Outcome:
    """The accuracy on the test split, or the validation split where there is none, of one fine-tuned network."""

    start: str
    configuration: Configuration
    seed: int
    lesson: Lesson
    accuracy: float


@dataclass(frozen=True)
class Setting:
    """What trains networks, the full network with its modules, and the test images."""

    trainer: Trainer
    pruner: BlockPruner
    teacher: Model

    def network(self, configuration: Configuration, blocks: dict[TuningBlock, str]) -> Model:
        names = (module.name for module in self.pruner.modules)
        found = self.pruner.materialize(self.pruner.plan(dict(zip(names, configuration, strict=True))))
        for symbol in symbols(configuration, self.pruner.input_sources.of_modules):
            key = blocks.get(TuningBlock((symbol,)))
            found = found if key is None else with_weights(found, self.trainer.stored_weights(key) or {})
        return found


def opened(network: Path, data: str, out: Path, images: int, target: Target) -> Setting:
    """Raises SystemExit for a full network that can't be trained."""
    if network.is_dir():
        imported = import_caffe(network / "net.prototxt")
        model, train, test = imported.model, imported.train_transform, imported.test_transform
    else:
        model = load(network)
        stated = model.metadata.get(TRANSFORM_KEY)
        test = IMAGENET if stated is None else InputTransform.from_json(stated)
        train = replace(test, mirror=True)
    channels, height, width = (int(d) for d in (tensor_shape(model.graph.inputs[0]) or ())[1:])
    dataset = load_dataset(data, (channels, height, width), train.crop_size)
    trainer = Trainer(
        dataset=replace(dataset, validation=dataset.validation.part(slice(images))),
        train_transform=train,
        test_transform=test,
        target=target,
        device=Device(threads=1),
        store=Store.open(out / "store"),
    )
    model = replace(model, modules=find_modules(model)[0])
    if network.is_dir():
        trained = trainer.fine_tune(model, read_solver(network / "teacher.prototxt"), "full network")
        model = with_weights(model, trainer.stored_weights(trained.key) or {})
    pruner = BlockPruner.of(model)
    return Setting(trainer, pruner, replace(pruner.model, modules=pruner.modules))


def pretrained(setting: Setting, configurations: Sequence[Configuration], steps: int) -> dict[TuningBlock, str]:
    """The keys of the blocks of all networks."""
    solver = replace(PRETRAINING, max_iter=steps)
    found = (s for c in configurations for s in symbols(c, setting.pruner.input_sources.of_modules) if s.is_pruned)
    blocks = list(dict.fromkeys(TuningBlock((symbol,)) for symbol in found))
    keys = setting.trainer.block_keys(setting.pruner, blocks, solver)
    setting.trainer.pretrain(setting.pruner, keys, solver, "blocks")
    return keys


def lessons_of(shares: Sequence[float], temperatures: Sequence[float], features: float) -> list[Lesson]:
    """Labels alone first."""
    found = [LABELLED]
    for share in shares:
        for temperature in temperatures:
            losses = () if share == 1 else LABELLED.losses
            lesson = Lesson(losses, share, temperature, scores=True)
            found += [lesson, replace(lesson, features=features)] if features else [lesson]
    return found


def tuned(
    setting: Setting,
    configurations: Sequence[Configuration],
    blocks: dict[TuningBlock, str],
    lessons: Sequence[Lesson],
    seeds: int,
    steps: int,
) -> Iterator[Outcome]:
    """Seed by seed, so that what is there after a while has something of everything."""
    trainer = setting.trainer
    for seed in range(seeds):
        solver = replace(FINE_TUNING, max_iter=steps, random_seed=seed)
        for configuration in configurations:
            for lesson in lessons:
                for start in STARTS:
                    network = setting.network(configuration, blocks if start == "block-trained" else {})
                    teacher = setting.teacher if lesson.needs_teacher else None
                    found = trainer.fine_tune(network, solver, start, lesson=lesson, teacher=teacher)
                    if isinstance(found.outcome, Failed):
                        raise SystemExit(found.outcome.reason)
                    yield Outcome(start, configuration, seed, lesson, float(found.outcome["curve"][-1][1]))


def named(lesson: Lesson) -> str:
    if not lesson.needs_teacher:
        return "labels alone"
    features = f", features {lesson.features:g}" if lesson.features else ""
    return f"share {lesson.distill:g}, T {lesson.temperature:g}{features}"


def gains(outcomes: Sequence[Outcome], start: str, lesson: Lesson) -> np.ndarray:
    """The differences to labels alone, a network and seed each, in points."""

    def of(wanted: Lesson) -> dict[tuple[Configuration, int], float]:
        chosen = (o for o in outcomes if o.start == start and o.lesson == wanted)
        return {(o.configuration, o.seed): o.accuracy for o in chosen}

    alone, taught = of(LABELLED), of(lesson)
    return 100 * np.array([taught[key] - alone[key] for key in taught.keys() & alone.keys()])


def summary(outcomes: Sequence[Outcome], lessons: Sequence[Lesson]) -> list[dict[str, object]]:
    rows = []
    for start in STARTS:
        for lesson in lessons:
            found = gains(outcomes, start, lesson)
            if not len(found):
                continue
            accuracies = [o.accuracy for o in outcomes if o.start == start and o.lesson == lesson]
            error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else float("nan")
            rows.append(
                {
                    "start": start,
                    "lesson": named(lesson),
                    "trainings": len(found),
                    "accuracy": round(float(np.mean(accuracies)), 4),
                    "gain": round(float(np.mean(found)), 2),
                    "standard_error": round(float(error), 2),
                    "better": int(np.sum(found > 0)),
                }
            )
    return rows


@dataclass(frozen=True)
class StepCost:
    """Of a lesson: the processor time of a step, over that of one that learns from labels alone, and the nodes of its
    graph. Medians of several turns."""

    lesson: str
    milliseconds: float
    ratio: float
    nodes: int


def step_costs(setting: Setting, configuration: Configuration, lessons: Sequence[Lesson]) -> list[StepCost]:
    """With the full network in the graph, and with what it says given."""
    trainer, network = setting.trainer, setting.network(configuration, {})
    solver = replace(FINE_TUNING, max_iter=1 + TIMED_STEPS * TURNS)
    names, nodes, opened_steps = [], [], []
    for lesson in lessons:
        teacher = setting.teacher if lesson.needs_teacher else None
        for is_given in (False, True)[: 1 if teacher is None else 2]:
            graph = trainer.training_graph(network, solver, lesson, teacher, is_given)
            _, steps = trainer.open(graph, solver, teacher=given(setting, network, lesson) if is_given else None)
            steps.advance(0, 1)
            names.append(f"{named(lesson)}, given" if is_given else named(lesson))
            nodes.append(len(graph.graph.nodes))
            opened_steps.append(steps)
    seconds = np.empty((TURNS, len(names)))
    for turn in range(TURNS):
        for i, steps in enumerate(opened_steps):
            begin = time.process_time()
            for step in range(TIMED_STEPS):
                steps.advance(1 + turn * TIMED_STEPS + step, 2 + turn * TIMED_STEPS + step)
            seconds[turn, i] = time.process_time() - begin
    milliseconds = 1000 * np.median(seconds, axis=0) / TIMED_STEPS
    ratios = np.median(seconds / seconds[:, :1], axis=0)
    return [
        StepCost(name, round(float(ms), 2), round(float(ratio), 3), count)
        for name, ms, ratio, count in zip(names, milliseconds, ratios, nodes, strict=True)
    ]


def given(setting: Setting, network: Model, lesson: Lesson) -> TeacherOutputs:
    """What the full network says of a few images, and zeros for the others: steps take as long."""
    trainer = setting.trainer
    part = trainer.distillation(lesson, setting.teacher).teacher_part(network)
    return teacher_outputs(part, trainer.dataset.train, trainer.train_transform, trainer.device, TEACHER_BATCH)


def printed(rows: Sequence[dict[str, object]]) -> str:
    head = "| start | lesson | trainings | accuracy | gain, points | better |\n| --- | --- | --- | --- | --- | --- |"
    lines = (
        f"| {r['start']} | {r['lesson']} | {r['trainings']} | {r['accuracy']:.4f} | {r['gain']:+.2f} ± "
        f"{r['standard_error']:.2f} | {r['better']} |"
        for r in rows
    )
    return "\n".join([head, *lines])


def printed_costs(costs: Sequence[StepCost]) -> str:
    head = "| lesson | ms of the processor a step | of labels alone | nodes |\n| --- | --- | --- | --- |"
    return "\n".join([head, *(f"| {c.lesson} | {c.milliseconds} | {c.ratio} | {c.nodes} |" for c in costs)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("data")
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--rates", default="0.3,0.5,0.7")
    parser.add_argument("--shares", default="0.5,0.9,1.0", help="beside labels alone; '' for these only")
    parser.add_argument("--temperatures", default="1,2,4")
    parser.add_argument("--features", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pretrain", type=int, default=300, metavar="STEPS")
    parser.add_argument("--images", type=int, default=2000, help="of the validation split, at most")
    parser.add_argument("--target", choices=get_args(Target), default="onnx")
    parser.add_argument("--only-steps", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates, shares, temperatures = (
        [float(v) for v in text.split(",") if v] for text in (options.rates, options.shares, options.temperatures)
    )
    setting = opened(options.network, options.data, options.out, options.images, options.target)
    modules = tuple(module.name for module in setting.pruner.modules)
    uniform = [tuple(rate if t.prunable else 0.0 for t in setting.pruner.convolutions) for rate in rates]
    random = sample_subspace(modules, rates, 2 * options.networks, seed=0).configurations
    configurations = list(dict.fromkeys([*uniform, *random]))[: options.networks]
    lessons = lessons_of(shares, temperatures, options.features)
    if options.only_steps:
        costs = step_costs(setting, configurations[len(rates) // 2], lessons)
        print(json.dumps([asdict(cost) for cost in costs]) if options.json else printed_costs(costs))
        return
    blocks = pretrained(setting, configurations, options.pretrain)
    outcomes: list[Outcome] = []
    for outcome in tuned(setting, configurations, blocks, lessons, options.seeds, options.steps):
        outcomes.append(outcome)
        if not options.json:
            print(f"{outcome.start}, {named(outcome.lesson)}, seed {outcome.seed}: {outcome.accuracy:.4f}", flush=True)
    rows, costs = summary(outcomes, lessons), step_costs(setting, configurations[len(rates) // 2], lessons)
    full = setting.trainer.quality_of(setting.teacher, setting.trainer.dataset.validation)
    if options.json:
        print(json.dumps({"full_accuracy": full, "rows": rows, "step": [asdict(c) for c in costs]}))
        return
    print(f"\nthe full network: {full:.4f}\n\n{printed(rows)}\n\n{printed_costs(costs)}")


if __name__ == "__main__":
    main()
