"""What pre-training costs and brings: from the remaining weights, in closed form, and with an end of its own.

    python benchmarks/block_start.py --pretrained FOLDER --data FOLDER [--rates 0.3,0.5,0.7] [--steps 50,150,500,1250]

FOLDER has resnet20_cifar10.onnx, and class folders of 32×32 photographs. All modules are pre-trained at all rates in
one graph, with Adam and the learning rate of `wootz run`, by cosine to 0 in so many steps. Each row is one way: seconds
of the processor (the machine may be busy), steps of a block on average, and for each rate the error of its blocks (mean
square difference to the teacher's output on 256 validation images in inference mode, in variances of that output; the
mean over the blocks), the accuracy of the network assembled from them, and that after 60 steps of fine-tuning. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.identifier import symbols
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, constants, with_weights
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.teacher_student import TeacherStudent, student_loss, student_prefix
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.defaults import FINE_TUNING, PRE_TRAINING
from wootz.runtime.inputs import feeds
from wootz.runtime.outcome import Trained
from wootz.runtime.session import Device, evaluate
from wootz.runtime.store import Store
from wootz.runtime.tasks.closed_form import ClosedForm
from wootz.runtime.tasks.plateau import PLATEAU
from wootz.runtime.tasks.trainer import BlockStart, Trainer

PIXELS = InputTransform(mean=(123.7, 116.3, 103.5), scale=(0.01712, 0.01751, 0.01743), mirror=True, channel_order="RGB")
IMAGES = 256
TUNING_STEPS = 60

Weights = Mapping[TuningBlock, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Row:
    """One way of pre-training; errors and accuracies by rate."""

    way: str
    seconds: float
    steps: float
    errors: tuple[float, ...]
    accuracies: tuple[float, ...]
    tuned: tuple[float, ...]


@dataclass(frozen=True)
class Bench:
    """A network whose blocks, those of all modules at each of the rates, are pre-trained."""

    trainer: Trainer
    pruner: BlockPruner
    rates: tuple[float, ...]
    blocks: tuple[tuple[TuningBlock, ...], ...]

    @property
    def all_blocks(self) -> tuple[TuningBlock, ...]:
        return tuple(block for of_rate in self.blocks for block in of_rate)

    def rows(self, steps: Sequence[int]) -> Iterator[Row]:
        yield self.row("remaining weights", 0.0, [0], {})
        begin = time.process_time()
        students = [self.pruner.student(block) for block in self.all_blocks]
        trained = [set(constants(student.model.graph)) for student in students]
        t = self.trainer
        solved = ClosedForm(self.pruner.model, t.dataset.train, t.test_transform, t.device).weights(students, trained)
        seconds = time.process_time() - begin
        yield self.row("closed form", seconds, [0], dict(zip(self.all_blocks, solved, strict=True)))
        starts: tuple[BlockStart, ...] = ("remaining", "closed-form")
        for count in steps:
            for start in starts:
                yield self.trained(f"{start}, {count} steps", replace(t, block_start=start, plateau=None), count)
        for start in starts:
            yield self.trained(
                f"{start}, {steps[-1]} steps with an end of its own",
                replace(t, block_start=start, plateau=PLATEAU),
                steps[-1],
            )

    def trained(self, way: str, trainer: Trainer, steps: int) -> Row:
        solver = Solver(
            type=PRE_TRAINING.type, base_lr=PRE_TRAINING.base_lr, lr_policy="cosine", momentum=0.9, max_iter=steps
        )
        keys = trainer.block_keys(self.pruner, self.all_blocks, solver)
        begin = time.process_time()
        trainer.pretrain(self.pruner, keys, solver, way)
        seconds = time.process_time() - begin
        found = {block: trainer.store.get(key) for block, key in keys.items()}
        good = {block: outcome for block, outcome in found.items() if isinstance(outcome, Trained)}
        weights = {block: outcome.weights for block, outcome in good.items()}
        return self.row(way, seconds, [int(outcome.record["steps"]) for outcome in good.values()], weights)

    def row(self, way: str, seconds: float, steps: Sequence[int], weights: Weights) -> Row:
        errors = self.errors(weights)
        networks = [self.network(rate, of_rate, weights) for rate, of_rate in zip(self.rates, self.blocks, strict=True)]
        validation = self.trainer.dataset.validation
        return Row(
            way,
            seconds,
            float(np.mean(steps)),
            tuple(float(np.mean([errors[block] for block in of_rate])) for of_rate in self.blocks),
            tuple(self.trainer.quality_of(network, validation) for network in networks),
            tuple(self.tuned(network) for network in networks),
        )

    def errors(self, weights: Weights) -> dict[TuningBlock, float]:
        validation, blocks = self.trainer.dataset.validation, self.all_blocks
        chosen = np.unique(np.linspace(0, len(validation) - 1, IMAGES).astype(np.int64))
        (batch,) = ordered_batches(validation.part(chosen), self.trainer.test_transform, IMAGES)
        joint = TeacherStudent().join(self.pruner, blocks)
        named = {
            student_prefix(i) + name: w for i, block in enumerate(blocks) for name, w in weights.get(block, {}).items()
        }
        fed = feeds(batch.data, self.pruner.model.graph.inputs[0].name)
        losses = evaluate(with_weights(joint, named), fed)
        exits = [self.pruner.modules[block.modules[-1]].exit for block in blocks]
        variance = {name: float(values.var()) for name, values in evaluate(self.tapped(exits), fed).items()}
        return {b: float(losses[student_loss(i)]) / variance[exits[i]] for i, b in enumerate(blocks)}

    def tapped(self, outputs: Sequence[str]) -> Model:
        """The teacher with these tensors as outputs."""
        model = self.pruner.model.copy()
        tensors = model.graph.tensors()
        model.graph.outputs = [tensors[name] for name in dict.fromkeys(outputs)]
        model.graph.cleanup()
        return replace(model, modules=())

    def network(self, rate: float, blocks: Sequence[TuningBlock], weights: Weights) -> Model:
        rates = {table.module: rate for table in self.pruner.convolutions if table.prunable}
        network = self.pruner.materialize(self.pruner.plan(rates))
        for block in blocks:
            network = with_weights(network, weights.get(block, {}))
        return network

    def tuned(self, network: Model) -> float:
        solver = Solver(
            type=SolverType.SGD,
            base_lr=FINE_TUNING.base_lr,
            lr_policy="cosine",
            momentum=0.9,
            weight_decay=FINE_TUNING.weight_decay,
            max_iter=TUNING_STEPS,
            warmup_iter=TUNING_STEPS // 20,
        )
        found = self.trainer.fine_tune(network, solver, "tuned")
        outcome = self.trainer.store.get(found.key)
        return float(outcome.record["curve"][-1][1]) if isinstance(outcome, Trained) else float("nan")


def opened(pretrained: Path, data: str, rates: tuple[float, ...], store: Path, threads: int) -> Bench:
    model = load(pretrained / "resnet20_cifar10.onnx")
    model = replace(model, modules=find_modules(model)[0])
    trainer = Trainer(
        dataset=load_dataset(data, (3, 32, 32)),
        train_transform=PIXELS,
        test_transform=replace(PIXELS, mirror=False),
        target="onnx",
        device=Device(threads=threads),
        store=Store.open(store),
    )
    pruner = BlockPruner.of(model)
    return Bench(trainer, pruner, rates, tuple(blocks_at(pruner, rate) for rate in rates))


def blocks_at(pruner: BlockPruner, rate: float) -> tuple[TuningBlock, ...]:
    configuration = tuple(rate if table.prunable else 0.0 for table in pruner.convolutions)
    found = symbols(configuration, pruner.input_sources.of_modules)
    return tuple(TuningBlock((symbol,)) for symbol in found if symbol.is_pruned)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrained", type=Path, required=True, help="folder with resnet20_cifar10.onnx")
    parser.add_argument("--data", required=True, help="as for wootz run")
    parser.add_argument("--rates", default="0.3,0.5,0.7")
    parser.add_argument("--steps", default="50,150,500,1250")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    rates = tuple(float(rate) for rate in options.rates.split(","))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = opened(options.pretrained, options.data, rates, Path(folder), options.threads)
        print("| way | seconds | steps |", " | ".join(f"error at {r:g} | accuracy | tuned" for r in rates), "|")
        for row in bench.rows([int(count) for count in options.steps.split(",")]):
            rows.append(row)
            of_rates = zip(row.errors, row.accuracies, row.tuned, strict=True)
            cells = " | ".join(f"{e:.4f} | {100 * a:.1f} % | {100 * t:.1f} %" for e, a, t in of_rates)
            print(f"| {row.way} | {row.seconds:.1f} | {row.steps:.0f} | {cells} |", flush=True)
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main(sys.argv[1:])
