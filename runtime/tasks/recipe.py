"""Recipes: what the result of a task is made of, and so the key that it is stored under.

A key is the digest of the program that is run, with all numbers in it, of the data that it reads, and of what of the
machine changes numbers. There is no version of Wootz in it: where another version makes another program, the key
differs, and where it makes the same, the result is the same.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wootz.passes.ir.model import MULTIPLIERS_KEY, TRAINING_KEY, Model, constants, proto_without_values
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.digest import array_digest, digest
from wootz.runtime.outcome import Trained
from wootz.runtime.store import Store

SMALLEST_DIGESTED = 64
"""Elements from which on a weight is digested for itself, once for all programs that share it."""


@dataclass(frozen=True)
class TrainingRecipe:
    """A training: all that its outcome depends on. The fields are digests, or what they would be of.

    `program` is the training graph with the values that it begins with; `images` and `labels` are those that it reads,
    labels empty where it reads none, and with what the full network says where that isn't in the program; `schedule`
    says which of them come in which step, and how they are turned into input. `rates` are the learning rates of all
    steps. `tests` is what is measured on the way, and `end` the rule that may end the training early, both empty for
    blocks. `machine` is what else changes numbers.
    """

    program: str
    images: str
    labels: str
    schedule: str
    rates: str
    tests: str
    end: str
    machine: str

    @property
    def key(self) -> str:
        return digest(repr(self).encode())

    def to_the_end(self) -> TrainingRecipe:
        """The same training without a rule that may end it."""
        return replace(self, end="")


@dataclass(frozen=True)
class BlockRecipe(TrainingRecipe):
    """The training of a block: `start` says how its first weights are made out of those in `program`, empty where they
    are these, and `kept` when they are kept instead of the last ones."""

    start: str
    kept: str


@dataclass(frozen=True)
class EvaluationRecipe:
    """A measurement of a finished network: `measure` says which, `data` is what it is made on, if on anything."""

    program: str
    measure: str
    data: str
    machine: str

    @property
    def key(self) -> str:
        return digest(repr(self).encode())

    def measured(self, store: Store, measure: Callable[[], Mapping[str, Any]], what: str = "") -> Mapping[str, Any]:
        """The record that `measure` gives, which the store keeps; `what` is its title there, else what is measured."""
        (record,) = records_of([self], store, lambda _: [measure()], what)
        return record


def records_of(
    recipes: Sequence[EvaluationRecipe],
    store: Store,
    measure: Callable[[Sequence[int]], Sequence[Mapping[str, Any]]],
    what: str = "",
    by: str = "",
) -> list[Mapping[str, Any]]:
    """The records of all recipes. `measure` gives those that the store doesn't have, of the recipes with these numbers;
    the time that it takes is divided among them."""
    known = [store.get_record(recipe.key) for recipe in recipes]
    missing = [number for number, record in enumerate(known) if record is None]
    begin = time.perf_counter()
    measured = dict(zip(missing, measure(missing), strict=True)) if missing else {}
    seconds = (time.perf_counter() - begin) / max(1, len(missing))
    for number, record in measured.items():
        recipe = recipes[number]
        store.put(recipe.key, Trained({}, record), what=what or recipe.measure, seconds=seconds, by=by)
    return [measured[number] if record is None else record for number, record in enumerate(known)]


@dataclass(frozen=True)
class Digests:
    """Digests of programs and arrays. An array is never written to: it is read once, whoever shares it."""

    _known: dict[int, tuple[weakref.ref[np.ndarray], str]] = field(default_factory=dict, repr=False)

    def array(self, values: np.ndarray) -> str:
        known = self._known.get(id(values))
        if known is not None and known[0]() is values:
            return known[1]
        found = array_digest(values)
        self._known[id(values)] = (weakref.ref(values), found)
        return found

    def program(self, model: Model) -> str:
        """Of everything that is executed: nodes, weights, inputs and outputs, and of a training graph which is what; of
        a network also the multipliers of learning rates, which are numbers in what trains it."""
        kept = TRAINING_KEY if TRAINING_KEY in model.metadata else MULTIPLIERS_KEY
        bare = replace(model, modules=(), metadata={k: v for k, v in model.metadata.items() if k == kept})
        arrays = {
            name: v for name, v in constants(model.graph).items() if v.size >= SMALLEST_DIGESTED and v.dtype != object
        }
        proto = proto_without_values(bare, arrays)
        proto.graph.name = proto.graph.doc_string = proto.doc_string = ""
        for node in proto.graph.node:
            node.doc_string = ""
        parts = (
            part for name, values in sorted(arrays.items()) for part in (name.encode(), self.array(values).encode())
        )
        return digest(proto.SerializeToString(deterministic=True), *parts)


def schedule_text(images: int, transform: InputTransform, solver: Solver) -> str:
    """Which batches a training reads: `runtime.schedule` follows from this."""
    runs = solver.max_iter * solver.iter_size
    return f"{images} images, {transform}, {runs} batches of {solver.batch_size}, seed {solver.random_seed}"


def rates_digest(solver: Solver) -> str:
    rates = np.fromiter((solver.learning_rate(step) for step in range(solver.max_iter)), np.float64, solver.max_iter)
    return digest(rates.tobytes())


def combined(keys: Iterable[str]) -> str:
    """The key of what several keys make together, in any order."""
    return digest(*(key.encode() for key in sorted(keys)))
