"""A published network at a share of its FLOPs: what is left of its accuracy, from blocks and from remaining weights.

    python benchmarks/paper/flops_budget.py resnet56_cifar10.onnx --data DATA --name resnet56 [--kept 0.476,0.392] \
        [--out FOLDER] [--seed 0] [--networks 4] [--report] [options that `wootz run` and `wootz search` have]

The network must not have learned from DATA's validation images, by which everything is chosen: of a network that was
trained on all of CIFAR-10 they are test images, and the other test images are for the report.

blocks    `wootz search` with `max Accuracy constraint FLOPs <= KEPT * full`, which fine-tunes --networks of them
default   the configuration that it has found, from the remaining weights

All are fine-tuned to the last step of their solver. 0.476 and 0.392 are 2.1 and 2.55 times fewer FLOPs. What is
finished isn't run again, and what was interrupted goes on; --report prints what is there, and runs nothing. Seconds are
the processor's, of all that a search does, and of the default network's fine-tuning, which was told its configuration.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from arguments import experiment_arguments
from explorer import Explorer, course_in, full_network, is_finished
from machine import machine

from wootz.runtime.result import BestNetwork, RunResult, TrainedNetworkResult

OUT = Path("runs/paper/flops_budget")


@dataclass(frozen=True)
class Budget:
    """The runs of a network at a share of its FLOPs, which are beside each other in `folder`."""

    folder: Path
    kept: float

    @property
    def blocks(self) -> Path:
        return self.folder / f"blocks-{self.kept:g}"

    @property
    def default(self) -> Path:
        return self.folder / f"default-{self.kept:g}"

    def run(self, explorer: Explorer, seed: int, networks: int) -> None:
        objective = f"max Accuracy constraint FLOPs <= {self.kept:g} * full"
        explorer.explore("search", self.blocks, objective, seed, "--networks", networks)
        if not is_finished(self.blocks) or (best := RunResult.load(self.blocks).best) is None:
            return
        subspace = self.folder / f"found-{self.kept:g}.json"
        subspace.write_text(json.dumps([best.configuration]))
        explorer.explore("run", self.default, "max Accuracy", seed, "--subspace", subspace)


@dataclass(frozen=True)
class Best:
    """The most accurate network of a finished run, its training, and the seconds of the run's trainings."""

    network: BestNetwork
    training: TrainedNetworkResult
    seconds: float


def best_of(folder: Path) -> Best | None:
    """None for a run that isn't finished, or has found nothing."""
    course = course_in(folder, is_default=False, by_processor=True)
    if course is None or (best := (result := RunResult.load(folder)).best) is None:
        return None
    (training,) = (network for network in result.block_trained.trained if network.index == best.index)
    return Best(best, training, course.seconds)


def lines(budgets: Sequence[Budget]) -> Iterator[str]:
    known = [(way, found) for b in budgets for way in (b.blocks, b.default) if (found := best_of(way)) is not None]
    if not known:
        yield "nothing is finished"
        return
    full = full_network(known[0][0])
    yield f"The full network has {full.quality:.4f} on validation and {full.test_quality} on test images.\n"
    yield "| way-kept | FLOPs of full | parameters of full | before | after | test | seconds |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for way, found in known:
        best, test = found.network, found.network.test_quality
        shares = f"{best.flops / full.flops:.3f} | {best.model_size / full.model_size:.3f}"
        accuracies = (
            f"{found.training.initial_quality:.4f} | {best.quality:.4f} | {'-' if test is None else f'{test:.4f}'}"
        )
        yield f"| {way.name} | {shares} | {accuracies} | {found.seconds:.0f} |"
    for way, found in known:
        curve = ", ".join(f"{accuracy:.4f} ({step})" for step, accuracy in found.training.curve)
        yield f"\n{way.name}, accuracies at tests (after so many steps): {curve}"


def main() -> None:
    parser = experiment_arguments(__doc__, OUT)
    parser.add_argument("--kept", type=lambda text: [float(part) for part in text.split(",")], default=[0.476, 0.392])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", type=int, default=4, help="that a search fine-tunes")
    options, further = parser.parse_known_args()
    budgets = [Budget(options.out / options.name, kept) for kept in options.kept]
    explorer = Explorer(options.network, options.data, options.threads, ("--reference", "given", *further))
    print(machine())
    for budget in () if options.report else budgets:
        budget.run(explorer, options.seed, options.networks)
    for line in lines(budgets):
        print(line)


if __name__ == "__main__":
    main()
