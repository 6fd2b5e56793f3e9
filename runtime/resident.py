"""Training on a data set that stays on the device: the graph makes its batches, the host looks in now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from types import MappingProxyType

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.training.embed_batches import OF_ALL, EmbedBatches
from wootz.passes.training.interface import EmbeddedBatches
from wootz.passes.transforms.fold_constants import FoldConstants
from wootz.runtime.data.dataset import Split
from wootz.runtime.inputs import Inputs
from wootz.runtime.machine import gpu_memory
from wootz.runtime.schedule import Choice
from wootz.runtime.session import Device, TrainingSession
from wootz.runtime.training import diverged_losses

WINDOW = 128
"""Runs for which the device holds the schedule."""
SECONDS_BETWEEN_LOOKS = 1.0
SHARE_FOR_DATA = 0.25
"""The part of a GPU's memory that the training images may take; the rest is for the training."""
LARGEST_SPLIT = 2**31
"""Elements. ONNX Runtime's Gather for CUDA counts them in 32 bits."""


def keeps_on_device(device: Device, split: Split, asked: bool | None = None) -> bool:
    """Whether training on `device` keeps `split` there: as asked for, else on a GPU with four times the memory.

    On the CPU there is little to gain: batches are prepared beside the training. Raises WootzError where it was asked
    for and can't be.
    """
    if isinstance(split.images, Inputs):
        if asked:
            raise WootzError("--data-on-device is for networks of images alone: leave it out")
        return False
    too_many = device.kind == "cuda" and split.images.size >= LARGEST_SPLIT
    if asked is not None:
        if asked and too_many:
            raise WootzError(
                f"the training images have {split.images.size:,} values, ONNX Runtime addresses {LARGEST_SPLIT:,} on "
                f"a GPU: train with --no-data-on-device"
            )
        return asked
    if device.kind == "cpu" or too_many:
        return False
    memory = gpu_memory(device.index)
    return memory is not None and split.images.nbytes <= SHARE_FOR_DATA * memory


def with_batches(graph: Model, split: Split, transform: InputTransform, solver: Solver) -> Model:
    """The training graph that makes the solver's batches from `split` itself, all shapes being known."""
    assert not isinstance(split.images, Inputs), "the host makes batches of several inputs"
    _, _, height, width = split.images.shape
    embedding = EmbedBatches(
        batch_size=solver.batch_size,
        window=max(WINDOW, solver.iter_size),
        height=height,
        width=width,
        pixels="uint8" if split.images.dtype == np.uint8 else "float32",
    )
    described = replace(graph, metadata={**graph.metadata, TRANSFORM_KEY: transform.to_json()})
    return FoldConstants().apply(embedding.apply(described).model).model


class ResidentSteps:
    """Steps of a session whose graph makes its batches (`with_batches`), as `schedule` says.

    The host gives the device a part of the schedule, lets it run, and reads the losses of all these runs at once:
    after as many as there is room for, or as take about a second.
    """

    def __init__(
        self,
        graph: Model,
        session: TrainingSession,
        split: Split,
        schedule: Iterator[Choice],
        solver: Solver,
        teacher: Mapping[str, np.ndarray] = MappingProxyType({}),
    ):
        """`teacher` is what the full network gives for all images, by the names of the graph's inputs before it made
        its batches itself, where it had such."""
        self.names = session.interface.losses
        self._batches = EmbeddedBatches.of(graph)
        self._session, self._schedule, self._solver = session, schedule, solver
        self._steps_a_look = 1
        session.put_whole(session.interface.data, np.asarray(split.images))
        for name, targets in session.interface.targets_by_input(split.labels):
            session.put_whole(name, session.in_form(name, targets))
        for name in session.interface.teacher:
            session.put_whole(name, teacher[name.removeprefix(OF_ALL)])

    def advance(self, first: int, stop: int) -> np.ndarray:
        begin = time.perf_counter()
        runs_a_step = self._solver.iter_size
        steps = range(first, min(stop, first + self._steps_a_look))
        choices = list(islice(self._schedule, len(steps) * runs_a_step))
        self._put_schedule(choices, [self._solver.learning_rate(s) for s in steps for _ in range(runs_a_step)])
        for _ in choices:
            self._session.run()
        losses = self._losses(len(choices))
        fit = SECONDS_BETWEEN_LOOKS * len(steps) / (time.perf_counter() - begin)
        self._steps_a_look = int(np.clip(fit, 1, self._batches.window // runs_a_step))
        return losses

    def diverged(self) -> set[str]:
        return diverged_losses(self._session)

    def _put_schedule(self, choices: Sequence[Choice], rates: Sequence[float]) -> None:
        columns = {
            self._batches.order: [c.images for c in choices],
            self._batches.tops: [c.tops for c in choices],
            self._batches.lefts: [c.lefts for c in choices],
            self._batches.heights: [c.heights for c in choices],
            self._batches.widths: [c.widths for c in choices],
            self._batches.flips: [c.flips for c in choices],
        }
        for name, rows in columns.items():
            if name is not None:
                self._put_rows(name, np.array(rows, np.int64).reshape(-1, self._solver.batch_size))
        self._put_rows(self._session.interface.learning_rate, np.array(rates, np.float32))
        self._session.write_slot(self._batches.position, np.zeros((), np.int64))

    def _put_rows(self, name: str, rows: np.ndarray) -> None:
        """`rows` at the beginning of an input that has room for a whole window."""
        window = np.zeros((self._batches.window, *rows.shape[1:]), rows.dtype)
        window[: len(rows)] = rows
        self._session.put(name, window)

    def _losses(self, runs: int) -> np.ndarray:
        """Of the last `runs` runs, the mean over those of a step: [steps, losses]."""
        recorded = np.stack([self._session.read_slot(name)[:runs] for name in self._batches.recorded], axis=1)
        steps = [recorded[i : i + self._solver.iter_size] for i in range(0, runs, self._solver.iter_size)]
        return np.array([np.mean(step, axis=0) for step in steps]).reshape(-1, len(self.names))
