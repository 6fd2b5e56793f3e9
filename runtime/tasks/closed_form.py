"""Students that start near their teacher: layers that have lost operands are solved for in closed form.

The layers of `solvable_layers` get the weights with which their outputs come nearest to the teacher's tensors of the
same name, in the order of data flow: each sees its operand as the layers solved before it make it. Their outputs are
linear in these weights, so this is ridge regression, on what a few hundred training images give.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from wootz.passes.analysis.index_maps import first_along, varying_axes
from wootz.passes.ir.model import Model, constants, with_weights
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.student import Student
from wootz.passes.training.solvable_layers import SolvableLayer, solvable_layers
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.ridge import Fit, Moments, fit, patches, places, targets
from wootz.runtime.session import Arrays, Device, ExactSession

IMAGES = 320
"""Training images that are looked at."""
CHECKED_OF = 5
"""One of so many is left out of the solution, and says whether that is better than what was there."""
RIDGE = 1e-3
"""The penalty of a weight's change, in mean squares of a feature."""
BATCH = 16
MOST_AT_ONCE = 4
"""Batches that are computed side by side at most: their activations are in memory."""

Weights = Mapping[str, np.ndarray]
T = TypeVar("T")


@dataclass(frozen=True)
class ClosedForm:
    """Solves for layers of students of one teacher. `check` is called now and then; what it raises ends the work."""

    teacher: Model
    split: Split
    transform: InputTransform
    device: Device
    check: Callable[[], None] = lambda: None

    def __str__(self) -> str:
        """All that the weights depend on beside teacher, student and images."""
        return f"ridge {RIDGE:g} on {IMAGES} images, {BATCH} at once, one of {CHECKED_OF} to check, {self.transform}"

    def weights(self, students: Sequence[Student], trained: Sequence[Collection[str]]) -> list[Weights]:
        """New weights of each student, by name, among those `trained`; none where they make its error no smaller.

        Students share the passes of the teacher, of which there are as many as the longest chain of layers solved one
        after the other, and one more. The weights of one don't depend on the others.
        """
        layers = [solvable_layers(s, self.teacher, names) for s, names in zip(students, trained, strict=True)]
        chosen = np.unique(np.linspace(0, len(self.split) - 1, IMAGES).astype(np.int64))
        is_checked = np.arange(len(chosen)) % CHECKED_OF == CHECKED_OF - 1
        found: list[Weights] = [{} for _ in students]
        if not is_checked.any() or not any(layers):
            return found
        for level in range(1 + max(layer.level for of_student in layers for layer in of_student)):
            at_level = [[layer for layer in of_student if layer.level == level] for of_student in layers]
            self._solve(students, at_level, found, self.split.part(chosen[~is_checked]))
        return self._better(students, found, self.split.part(chosen[is_checked]))

    def _solve(
        self,
        students: Sequence[Student],
        layers: Sequence[Sequence[SolvableLayer]],
        found: list[Weights],
        images: Split,
    ) -> None:
        """Adds to the weights `found` for each student those of its `layers`, no two of which follow each other."""
        concerned = [i for i, of_student in enumerate(layers) if of_student]
        pieces = [
            _Piece(students[i], found[i], [layer.data for layer in layers[i]], self._one_thread) for i in concerned
        ]
        seen_by = [[(layer, Moments()) for layer in layers[i]] for i in concerned]
        outputs = {layer.output for of_student in layers for layer in of_student}

        def observed(number: int, teacher: Arrays) -> list[list[tuple[np.ndarray, np.ndarray]]]:
            return [
                [_seen(layer, own[layer.data], teacher[layer.output], number) for layer, _ in of_piece]
                for of_piece, own in (
                    (of_piece, piece.run(teacher)) for of_piece, piece in zip(seen_by, pieces, strict=True)
                )
            ]

        for of_pieces in self._over(images, pieces, outputs, observed):
            for of_piece, rows in zip(seen_by, of_pieces, strict=True):
                for (_, moments), (x, y) in zip(of_piece, rows, strict=True):
                    moments.add(x, y)
        for i, of_piece in zip(concerned, seen_by, strict=True):
            known = constants(students[i].model.graph)
            for layer, moments in of_piece:
                found[i] = {**found[i], **_solution(layer, moments, known)}

    def _better(self, students: Sequence[Student], found: Sequence[Weights], images: Split) -> list[Weights]:
        """Of the weights `found` those with which a student's error on `images` is smaller than without."""
        exits = [student.model.graph.outputs[0].name for student in students]
        pairs = [
            [_Piece(student, weights, [exit_], self._one_thread) for weights in ({}, new)] if new else []
            for student, new, exit_ in zip(students, found, exits, strict=True)
        ]
        errors = np.zeros((len(students), 2))

        def squares(_: int, teacher: Arrays) -> np.ndarray:
            of_batch = np.zeros((len(students), 2))
            for i, (exit_, pair) in enumerate(zip(exits, pairs, strict=True)):
                target = _kept(teacher[exit_], students[i].kept(exit_)) if pair else None
                for j, piece in enumerate(pair):
                    of_batch[i, j] = np.square(piece.run(teacher)[exit_] - target, dtype=np.float64).sum()
            return of_batch

        pieces = [piece for pair in pairs for piece in pair]
        for of_batch in self._over(images, pieces, {e for e, pair in zip(exits, pairs, strict=True) if pair}, squares):
            errors += of_batch
        return [new if after < before else {} for new, (before, after) in zip(found, errors, strict=True)]

    def _over(
        self, images: Split, pieces: Sequence[_Piece], outputs: Collection[str], work: Callable[[int, Arrays], T]
    ) -> Iterator[T]:
        """What `work` makes of each batch, in their order: it gets its number and the teacher's tensors `outputs` and
        those that `pieces` read. Batches are computed side by side on one thread each: how many doesn't change a sum.
        """
        source = self.teacher.graph.inputs[0].name
        session = _tapped(self.teacher, {piece.source for piece in pieces} | set(outputs), self._one_thread)

        def worked(numbered: tuple[int, np.ndarray]) -> T:
            number, data = numbered
            return work(number, session.run({source: data}) | {source: data})

        batches = enumerate(batch.data for batch in ordered_batches(images, self.transform, BATCH))
        at_once = min(MOST_AT_ONCE, self.device.numerics_threads)
        with ThreadPoolExecutor(at_once) as pool:
            while taken := list(islice(batches, at_once)):
                self.check()
                yield from pool.map(worked, taken)

    @property
    def _one_thread(self) -> Device:
        return replace(self.device, threads=1)


class _Piece:
    """A student with other weights, run on the teacher's tensors: gives `outputs`, its own tensors."""

    def __init__(self, student: Student, weights: Weights, outputs: Iterable[str], device: Device):
        self.source = student.model.graph.inputs[0].name
        self._kept = student.kept(self.source)
        computed = set(outputs) - {self.source}
        self._session = _tapped(with_weights(student.model, weights), computed, device) if computed else None

    def run(self, teacher: Arrays) -> Arrays:
        fed = {self.source: _kept(teacher[self.source], self._kept)}
        return fed if self._session is None else fed | self._session.run(fed)


def _tapped(model: Model, outputs: Collection[str], device: Device) -> ExactSession:
    """Gives these tensors of a model, of which its own input is none."""
    tapped = model.copy()
    tensors = tapped.graph.tensors()
    tapped.graph.outputs = [tensors[name] for name in sorted(outputs) if tensors[name].inputs]
    tapped.graph.cleanup()
    return ExactSession(replace(tapped, modules=()), device)


def _kept(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The elements of a teacher's tensor that a student has."""
    if kept.all():
        return values
    (axis,) = varying_axes(kept)
    return np.take(values, np.flatnonzero(first_along(kept, axis)), axis)


def _seen(layer: SolvableLayer, data: np.ndarray, output: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The features of a layer in batch `number`, and the teacher's output there."""
    at = places(output.shape[2:], number)
    x = patches(data, layer.window, layer.groups, at)
    return x, targets(np.take(output, layer.kept, 1), layer.groups, at)


def _solution(layer: SolvableLayer, moments: Moments, known: Weights) -> Weights:
    """New parameters of a layer, and of the BatchNormalization behind it."""
    weight = known[layer.weight]
    rows = weight.T if layer.is_transposed else weight
    start = rows.reshape(layer.groups, len(rows) // layer.groups, -1).transpose(0, 2, 1)
    found = fit(moments, start, RIDGE, centred=layer.bias is not None or layer.norm is not None)
    solved = found.weights.transpose(0, 2, 1).reshape(rows.shape)
    new = {layer.weight: np.ascontiguousarray(solved.T if layer.is_transposed else solved)}
    offset = np.zeros(len(rows))
    if layer.bias is not None:
        offset = (found.target_mean - found.mean).ravel()
        new[layer.bias] = offset
    if layer.norm is not None:
        new |= _renormalized(layer, found, offset, known)
    return {name: values.astype(np.float32) for name, values in new.items()}


def _renormalized(layer: SolvableLayer, found: Fit, offset: np.ndarray, known: Weights) -> Weights:
    """The BatchNormalization behind a layer, with the statistics of what it now computes: it maps the mean of that to
    what the teacher's maps the mean of its own to, and differences from the mean as the teacher's."""
    norm = layer.norm
    assert norm is not None
    scale, bias, mean, variance = (
        known[name].astype(np.float64) for name in (norm.scale, norm.bias, norm.mean, norm.variance)
    )
    factor = scale / np.sqrt(variance + norm.epsilon)
    own_variance = found.variance.ravel()
    return {
        norm.mean: found.mean.ravel() + offset,
        norm.variance: own_variance,
        norm.scale: factor * np.sqrt(own_variance + norm.epsilon),
        norm.bias: bias + factor * (found.target_mean.ravel() - mean),
    }
