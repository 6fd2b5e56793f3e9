"""Trains a network from scratch towards any targets, by a training graph of Wootz's passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.examples.tasks.layers import PIXELS
from wootz.passes.ir.model import Model, with_weights
from wootz.passes.pipeline import run_pipeline
from wootz.passes.plan.lesson import LossKind
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.interface import target_input
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.training_mode import TrainingMode
from wootz.runtime.batches import normalize
from wootz.runtime.session import Device, TrainingSession

LOSS = "loss"


@dataclass(frozen=True)
class Target:
    """What an output is compared with: `values`, one an image, by a `loss` that counts `weight` times.

    The values of the cross-entropy are classes, one an image or a position; `ignore` is none of them.
    """

    loss: LossKind
    values: np.ndarray
    weight: float = 1.0
    ignore: int | None = None

    @property
    def array(self) -> np.ndarray:
        return self.values.astype(np.int64 if self.loss == "softmax-cross-entropy" else np.float32)


def adam(steps: int, batch_size: int = 16, base_lr: float = 0.003) -> Solver:
    """Adam, with a rate that falls to 0."""
    return Solver(
        type=SolverType.ADAM, momentum=0.9, base_lr=base_lr, lr_policy="cosine", max_iter=steps, batch_size=batch_size
    )


def trained(network: Model, images: np.ndarray, targets: Mapping[str, Target], solver: Solver) -> Model:
    """The network after training on pixels [n, channels, height, width] towards a target for each of its outputs."""
    session = TrainingSession(_training_graph(network, targets, solver), Device(threads=1))
    arrays = {name: target.array for name, target in targets.items()}
    for step, chosen in enumerate(_batches(len(images), solver)):
        batch = normalize(images[chosen], PIXELS)
        wanted = {name: values[chosen] for name, values in arrays.items()}
        (loss,) = session.step(batch, wanted, solver.learning_rate(step))
        if step % 100 == 0:
            print(f"step {step} of {solver.max_iter}: loss {loss:.4f}", flush=True)
    return with_weights(network, session.weights())


def _training_graph(network: Model, targets: Mapping[str, Target], solver: Solver) -> Model:
    """The network, the sum of all losses, its gradients and the optimizer, in one graph."""
    *others, last = targets
    names = {name: LOSS if name == last else f"{name}_loss" for name in targets}
    losses = [
        AttachLoss(
            loss=target.loss,
            output=name,
            loss_name=names[name],
            labels=target_input(name),
            target=target_input(name),
            ignore_label=target.ignore,
            scale=target.weight,
            plus=names[before] if before else "",
        )
        for (name, target), before in zip(targets.items(), ["", *others], strict=True)
    ]
    labels = tuple(map(target_input, targets))
    optimizer = ApplyOptimizer(**ApplyOptimizer.settings(solver), losses=(LOSS,), labels=labels)
    passes = [TrainingMode(), *losses, BuildGradients(losses=(LOSS,)), optimizer, Legalize()]
    return run_pipeline(network, passes).model


def _batches(count: int, solver: Solver) -> Iterator[np.ndarray]:
    """Positions of images, each of them once before any of them again."""
    random = np.random.default_rng(solver.random_seed)
    order = np.concatenate([random.permutation(count) for _ in range(solver.max_iter * solver.batch_size // count + 1)])
    for step in range(solver.max_iter):
        yield order[step * solver.batch_size :][: solver.batch_size]
