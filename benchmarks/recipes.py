"""Which recipes train best where nobody says how? Candidates for fine-tuning, pre-training and the full network.

    python benchmarks/recipes.py --data FOLDER --pretrained FOLDER [--out FOLDER] [--minutes 40] [--only PAIR]

Each (network, data set) pair is trained by every candidate: the first of each phase in `PHASES`, and what differs
from it in one thing. --data has the folders flowers5_64, dogs10_96 and cifar10_32_small, --pretrained
resnet20_cifar10.onnx. What was trained is in the store of --out: the same command goes on where the last one ended.
Networks are pruned at 0.5 and 0.7 in turn. Measured is the accuracy on the validation split: for fine-tuning at the
end, of the network that pre-trained blocks make up; for pre-training before any fine-tuning, of what the blocks make
up; for the full network at the end. Candidates are tried on all pairs before the next ones are, so that --minutes
leaves out the last ones everywhere. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.identifier import symbols
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Constant, Model, with_weights
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.solver import LearningRatePolicy, Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.transforms.fold_batchnorm import FoldBatchNorm
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.trainer import Trainer

EXAMPLES = Path(__file__).parent.parent / "examples"
RATES = (0.5, 0.7)
IMAGENET = InputTransform(mean=(123.7, 116.3, 103.5), scale=(0.01712, 0.01751, 0.01743), mirror=True)
IMAGENET = replace(IMAGENET, channel_order="RGB")


@dataclass(frozen=True)
class Recipe:
    """How something is trained, but for how long."""

    type: SolverType
    base_lr: float
    lr_policy: LearningRatePolicy = "cosine"
    weight_decay: float = 0.0
    warmup: float = 0.0
    clip_gradients: float = -1.0


@dataclass(frozen=True)
class Candidate:
    """A recipe for so many steps of so many images."""

    name: str
    recipe: Recipe
    steps: float = 1.0
    batch_size: int = 32

    def solver(self, steps: int) -> Solver:
        made = max(1, round(self.steps * steps))
        return Solver(
            type=self.recipe.type,
            base_lr=self.recipe.base_lr,
            lr_policy=self.recipe.lr_policy,
            momentum=0.9,
            weight_decay=self.recipe.weight_decay,
            clip_gradients=self.recipe.clip_gradients,
            warmup_iter=round(self.recipe.warmup * made),
            max_iter=made,
            batch_size=self.batch_size,
            random_seed=1,
        )


def variants(middle: Recipe, rates: tuple[float, ...], other: Recipe) -> tuple[Candidate, ...]:
    """The middle, and what differs from it in one thing; `other` is of another optimizer."""
    return (
        Candidate("middle", middle),
        *(Candidate(f"learning rate {rate:g}", replace(middle, base_lr=rate)) for rate in rates),
        Candidate(f"{other.type.value} {other.base_lr:g}", other),
        Candidate("learning rate fixed", replace(middle, lr_policy="fixed")),
        Candidate("half the batch, twice the steps", middle, steps=2, batch_size=16),
        Candidate("3 times the steps", middle, steps=3),
    )


def recipe(kind: SolverType, base_lr: float) -> Recipe:
    return Recipe(kind, base_lr, weight_decay=5e-4, warmup=0.05) if kind is SolverType.SGD else Recipe(kind, base_lr)


SGD, ADAM = SolverType.SGD, SolverType.ADAM
CLIPPED = replace(recipe(SGD, 0.002), clip_gradients=1.0)
PHASES = {
    "fine-tuning": (
        *variants(recipe(SGD, 0.01), (0.002, 0.05), recipe(ADAM, 0.001)),
        Candidate("learning rate 0.005", recipe(SGD, 0.005)),
        Candidate("3 times the steps, learning rate 0.005", recipe(SGD, 0.005), steps=3),
        Candidate("3 times the steps, learning rate 0.002", recipe(SGD, 0.002), steps=3),
    ),
    "pre-training": (
        *variants(recipe(ADAM, 0.002), (0.0005, 0.008), recipe(SGD, 0.05)),
        Candidate("3 times the steps, learning rate 0.008", recipe(ADAM, 0.008), steps=3),
    ),
    "fine-tuning, folded": (
        Candidate("gradients clipped at 1, learning rate 0.002", CLIPPED),
        Candidate("gradients clipped at 1, learning rate 0.01", replace(CLIPPED, base_lr=0.01)),
        Candidate("gradients clipped at 1, learning rate 0.0005", replace(CLIPPED, base_lr=0.0005)),
        Candidate("Adam 0.001", recipe(ADAM, 0.001)),
        Candidate("Adam 0.0003", recipe(ADAM, 0.0003)),
        Candidate("learning rate 0.002", recipe(SGD, 0.002)),
        Candidate("learning rate 0.0004", recipe(SGD, 0.0004)),
    ),
    "pre-training, folded": (
        Candidate("middle", recipe(ADAM, 0.002)),
        Candidate("learning rate 0.0005", recipe(ADAM, 0.0005)),
        Candidate("learning rate 0.008", recipe(ADAM, 0.008)),
    ),
    "new layers": variants(recipe(SGD, 0.01), (0.002, 0.05), recipe(ADAM, 0.001)),
    "from scratch": variants(recipe(SGD, 0.05), (0.01, 0.2), recipe(ADAM, 0.001)),
}
"""The first of a phase is what the other phases of a pair stand on."""


@dataclass(frozen=True)
class Opened:
    network: Model
    transform: InputTransform
    dataset: Dataset


@dataclass(frozen=True)
class Pair:
    """`full` is how the full network is trained, empty for one that is given."""

    name: str
    open: Callable[[argparse.Namespace], Opened]
    full: str
    steps: int
    full_steps: int = 0
    phases: tuple[str, ...] = ("fine-tuning", "pre-training")


def digits(options: argparse.Namespace) -> Opened:
    imported = import_caffe(EXAMPLES / "digits" / "net.prototxt")
    return Opened(imported.model, imported.train_transform, load_dataset("digits", (1, 8, 8)))


def residual(name: str, options: argparse.Namespace) -> Opened:
    """The residual network of examples/flowers on images of half the size."""
    text = (EXAMPLES / "flowers" / "net.prototxt").read_text().replace("dim: 64 dim: 64", "dim: 32 dim: 32")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "net.prototxt").write_text(text)
        imported = import_caffe(Path(folder) / "net.prototxt")
    dataset = load_dataset(str(options.data / name), (3, 32, 32))
    network = with_new_head(imported.model, len(dataset.classes))
    return Opened(network, imported.train_transform, fewer(dataset))


def resnet20(name: str, options: argparse.Namespace, is_folded: bool = False) -> Opened:
    """Trained on CIFAR-10: for other data it gets a new head."""
    network = load(str(options.pretrained / "resnet20_cifar10.onnx"))
    dataset = load_dataset(str(options.data / name), (3, 32, 32))
    if not name.startswith("cifar"):
        network = with_new_head(network, len(dataset.classes))
    elif dataset.test is not None:
        dataset = replace(dataset, validation=dataset.test)  # it was trained on the others
    network = replace(network, modules=find_modules(network)[0])
    return Opened(FoldBatchNorm().apply(network).model if is_folded else network, IMAGENET, fewer(dataset))


def with_new_head(network: Model, classes: int) -> Model:
    """Another number of outputs of the last layer, whose weights are drawn anew."""
    result = network.copy()
    head = next(node for node in reversed(result.graph.nodes) if node.op == "Gemm")
    generator = np.random.default_rng(0)
    weight, bias = (operand for operand in head.inputs[1:3] if isinstance(operand, Constant))
    features = weight.values.shape[1 if head.attrs.get("transB") else 0]
    drawn = generator.normal(0, 0.01, (classes, features)).astype(np.float32)
    weight.values = drawn if head.attrs.get("transB") else np.ascontiguousarray(drawn.T)
    bias.values = np.zeros(classes, np.float32)
    result.graph.outputs[0].shape = ["N", classes]
    return result


def fewer(dataset: Dataset, train: int = 1200, validation: int = 500) -> Dataset:
    """Part of the images, of all classes alike."""

    def part(split: Split, count: int) -> Split:
        chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64))
        return split.part(chosen)

    return replace(
        dataset,
        train=part(dataset.train, train),
        validation=part(dataset.validation, validation),
        test=None,
        source=None,
    )


FOLDED = ("fine-tuning, folded", "pre-training, folded")
PAIRS = (
    Pair("digits", digits, "from scratch", 60, 150, ("fine-tuning", "pre-training", "from scratch")),
    Pair("residual, flowers", lambda o: residual("flowers5_64", o), "from scratch", 40, 250),
    Pair("residual, dogs", lambda o: residual("dogs10_96", o), "from scratch", 40, 250),
    Pair("ResNet-20, CIFAR-10", lambda o: resnet20("cifar10_32_small", o), "", 40),
    Pair("ResNet-20 folded, CIFAR-10", lambda o: resnet20("cifar10_32_small", o, True), "", 40, 0, FOLDED),
    Pair("ResNet-20, flowers", lambda o: resnet20("flowers5_64", o), "new layers", 40, 40, ("new layers",)),
    Pair("ResNet-20, dogs", lambda o: resnet20("dogs10_96", o), "new layers", 40, 40, ("new layers",)),
)


@dataclass(frozen=True)
class Row:
    pair: str
    phase: str
    candidate: str
    accuracy: float | None
    steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)


class Bench:
    """One pair, opened: its full network, trained with the defaults, and the network that is pruned."""

    def __init__(self, pair: Pair, options: argparse.Namespace):
        opened = pair.open(options)
        self.pair = pair
        self.trainer = Trainer(
            dataset=opened.dataset,
            train_transform=opened.transform,
            test_transform=opened.transform,
            target="onnx",
            device=Device(threads=options.threads),
            store=Store.open(options.out / "store"),
        )
        modules = opened.network.modules or find_modules(opened.network)[0]
        self.network = replace(opened.network, modules=modules)

    def accuracy_of(self, phase: str, candidate: Candidate) -> float | None:
        """None where the training fails."""
        match phase.partition(",")[0]:
            case "fine-tuning":
                return self._trained(self._assembled(PHASES["pre-training"][0]), candidate.solver(self.pair.steps))
            case "pre-training":
                return self.trainer.quality_of(self._assembled(candidate), self.trainer.dataset.validation)
            case _:
                return self._trained(self.network, candidate.solver(self.pair.full_steps))

    def _trained(self, network: Model, solver: Solver) -> float | None:
        finished = self.trainer.fine_tune(network, solver, "network")
        return None if isinstance(finished.outcome, Failed) else float(finished.outcome["curve"][-1][1])

    def _pruner(self) -> BlockPruner:
        if not self.pair.full:
            return BlockPruner.of(self.network)
        solver = PHASES[self.pair.full][0].solver(self.pair.full_steps)
        key = self.trainer.fine_tune(self.network, solver, "the full network").key
        return BlockPruner.of(with_weights(self.network, self.trainer.stored_weights(key) or {}))

    def _assembled(self, candidate: Candidate) -> Model:
        """The pruned network, of blocks of one module each."""
        pruner = self._pruner()
        prunable = [bool(table.prunable) for table in pruner.convolutions]
        rates = [RATES[i % len(RATES)] if is_prunable else 0.0 for i, is_prunable in enumerate(prunable)]
        found = symbols(tuple(rates), pruner.input_sources.of_modules)
        blocks = [TuningBlock((symbol,)) for symbol in found if symbol.is_pruned]
        solver = candidate.solver(self.pair.steps)
        finished = self.trainer.pretrain(pruner, self.trainer.block_keys(pruner, blocks, solver), solver, "blocks")
        model = pruner.materialize(pruner.plan({m.name: r for m, r in zip(pruner.modules, rates, strict=True)}))
        for block in finished.values():
            outcome = self.trainer.store.get(block.key)
            model = with_weights(model, outcome.weights) if isinstance(outcome, Trained) else model
        return model


def measured(options: argparse.Namespace) -> Iterator[Row]:
    """As far as there is time for; what is known costs none."""
    end = time.monotonic() + 60 * options.minutes
    benches = [Bench(pair, options) for pair in PAIRS if options.only in pair.name]
    for number in range(max(map(len, PHASES.values()))):
        for bench in benches:
            for phase in (phase for phase in bench.pair.phases if number < len(PHASES[phase])):
                if time.monotonic() > end:
                    print("out of time: the same command goes on", file=sys.stderr)
                    return
                yield row(bench, phase, PHASES[phase][number])


def row(bench: Bench, phase: str, candidate: Candidate) -> Row:
    pair, begin = bench.pair, time.monotonic()
    accuracy = bench.accuracy_of(phase, candidate)
    solver = candidate.solver(pair.steps if phase.startswith(("fine-tuning", "pre-training")) else pair.full_steps)
    settings = {"type": solver.type.value, "base_lr": solver.base_lr, "batch_size": solver.batch_size}
    shown = "failed" if accuracy is None else f"{accuracy:.3f}"
    print(f"{pair.name:28} {phase:13} {candidate.name:32} {shown} {time.monotonic() - begin:6.1f} s", flush=True)
    return Row(pair.name, phase, candidate.name, accuracy, solver.max_iter, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/recipes"))
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--only", default="", help="part of the pairs' names")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps({"recipes": [asdict(row) for row in measured(options)]}))


if __name__ == "__main__":
    main()
