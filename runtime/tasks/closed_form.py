"""Students that start near their teacher: layers that have lost operands are solved for in closed form.

The layers of `solvable_layers` get the weights with which their outputs come nearest to the teacher's tensors of the
same name, in the order of data flow: each sees its operand as the layers solved before it make it. Their outputs are
linear in these weights, so this is ridge regression, on what a few hundred training images give. Some of these are held
out: they say which of several weights bring a student nearest to its teacher.
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
from wootz.passes.transforms.teacher_student import SMALLEST_SIZE
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.inputs import Data, feeds
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

    @property
    def judge(self) -> str:
        """All that `errors` depend on beside teacher, student, weights and images."""
        return f"every {CHECKED_OF}th of {IMAGES} images, {BATCH} at once, {self.transform}"

    def weights(self, students: Sequence[Student], trained: Sequence[Collection[str]]) -> list[Weights]:
        """New weights of each student, by name, among those `trained`; none where they make its error no smaller.

        Students share the passes of the teacher, of which there are as many as the longest chain of layers solved one
        after the other, and one more. The weights of one don't depend on the others.
        """
        layers = [solvable_layers(s, self.teacher, names) for s, names in zip(students, trained, strict=True)]
        chosen, held_out = self._chosen()
        found: list[Weights] = [{} for _ in students]
        if not held_out.any() or not any(layers):
            return found
        for level in range(1 + max(layer.level for of_student in layers for layer in of_student)):
            at_level = [[layer for layer in of_student if layer.level == level] for of_student in layers]
            self._solve(students, at_level, found, self.split.part(chosen[~held_out]))
        errors = self.errors(students, [({}, new) if new else () for new in found])
        is_better = [bool(of_student) and of_student[1] < of_student[0] for of_student in errors]
        return [new if better else {} for new, better in zip(found, is_better, strict=True)]

    def errors(self, students: Sequence[Student], weights: Sequence[Sequence[Weights]]) -> list[list[float]]:
        """Of each student with each of its `weights` the mean squared difference between its output and the teacher's,
        in inference mode, on the images that are held out: on all that are looked at where these are too few for that.

        With several outputs it is the mean of these differences, each divided by the mean square of the teacher's.
        """
        chosen, held_out = self._chosen()
        images = self.split.part(chosen[held_out] if held_out.any() else chosen)
        exits = [[t.name for t in student.model.graph.outputs] for student in students]
        pieces = [
            [_Piece(student, new, of_exits, self._one_thread) for new in of_student]
            for student, of_student, of_exits in zip(students, weights, exits, strict=True)
        ]
        read = {exit_ for of_exits, of_student in zip(exits, pieces, strict=True) if of_student for exit_ in of_exits}
        if not read:
            return [[] for _ in students]

        def measured(_: int, teacher: Arrays) -> list[list[list[tuple[float, float, int]]]]:
            return [
                [
                    [_squares(given[exit_], teacher[exit_], student.kept(exit_)) for exit_ in of_exits]
                    for given in (piece.run(teacher) for piece in of_student)
                ]
                for student, of_exits, of_student in zip(students, exits, pieces, strict=True)
            ]

        sums = [np.zeros((len(p), len(e), 3)) for p, e in zip(pieces, exits, strict=True)]
        for of_batch in self._over(images, [p for of_student in pieces for p in of_student], read, measured):
            for total, found in zip(sums, of_batch, strict=True):
                total += np.reshape(found, total.shape)
        return [[_error(of_exits) for of_exits in total] for total in sums]

    def _chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the images that are looked at, and which of these are held out."""
        chosen = self.split.spread(IMAGES)
        return chosen, np.arange(len(chosen)) % CHECKED_OF == CHECKED_OF - 1

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
                found[i] = {**found[i], **_finite_solution(layer, moments, known)}

    def _over(
        self, images: Split, pieces: Sequence[_Piece], outputs: Collection[str], work: Callable[[int, Arrays], T]
    ) -> Iterator[T]:
        """What `work` makes of each batch, in their order: it gets its number and the teacher's tensors `outputs` and
        those that `pieces` read. Batches are computed side by side on one thread each: how many doesn't change a sum.
        """
        image = self.teacher.graph.inputs[0].name
        session = _tapped(
            self.teacher, {source for piece in pieces for source in piece.sources} | set(outputs), self._one_thread
        )

        def worked(numbered: tuple[int, Data]) -> T:
            number, data = numbered
            given = dict(feeds(data, image))
            with np.errstate(over="ignore", invalid="ignore"):
                return work(number, session.run({name: given[name] for name in session.inputs}) | given)

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
        self.sources = tuple(t.name for t in student.model.graph.inputs)
        self._kept = {source: student.kept(source) for source in self.sources}
        computed = set(outputs) - {*self.sources}
        self._session = _tapped(with_weights(student.model, weights), computed, device) if computed else None

    def run(self, teacher: Arrays) -> Arrays:
        fed = {source: _kept(teacher[source], kept) for source, kept in self._kept.items()}
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


def _squares(output: np.ndarray, target: np.ndarray, kept: np.ndarray) -> tuple[float, float, int]:
    """The sum of squared differences between a student's output and what it has of the teacher's, the sum of squares of
    that, and the number of elements."""
    whole = _kept(target, kept)
    differences, squares = (float(np.square(v, dtype=np.float64).sum()) for v in (output - whole, whole))
    return differences, squares, output.size


def _error(sums: np.ndarray) -> float:
    """A student's error from the sums of `_squares` of each of its outputs: float64[outputs, 3]."""
    differences, squares, count = sums.T
    if len(sums) == 1:
        return float(differences[0] / count[0])
    return float(np.mean(differences / np.maximum(squares, SMALLEST_SIZE * count)))


def _finite_solution(layer: SolvableLayer, moments: Moments, known: Weights) -> Weights:
    """New parameters of a layer; none where some are beyond what float32 can say."""
    with np.errstate(over="ignore", invalid="ignore"):
        new = _solution(layer, moments, known)
    return new if all(np.isfinite(values).all() for values in new.values()) else {}


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
