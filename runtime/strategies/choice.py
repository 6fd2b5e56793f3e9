"""Which networks of a space are the best, before any of them is trained: an integer program, solved by HiGHS.

Everything that is minimised or bounded is additive over the pieces of a network (`wootz.passes.plan.space.Space`).
A binary variable x[m, o] says that module m has option o, one for each module. A piece that one module decides is that
variable. One that several decide, a module behind its sources, is a product of theirs: a continuous variable y for each
combination of their options, whose marginals are the x of each:

    sum of y with option o of module m  =  x[m, o]

Where x are 0 or 1, these leave for y the product alone. So the program is exact, and for a chain without bounds its
relaxation is, too.

HiGHS allows rows to be violated by 10^-6 and proves an optimum to 10^-6, absolutely. Rows are therefore scaled to
coefficients near 10^4, and every answer's sums are formed again from the pieces: one that violates a bound is cut off,
and the program solved again. It is also solved again where the least sum is small beside the coefficients: no network
that is better has a piece of more than that sum, and without these pieces the scale is finer.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import scipy.optimize
import scipy.sparse

from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import Symbol
from wootz.passes.plan.space import Quantity, Space

COEFFICIENT_BITS = 14
"""Rows and objective are multiplied by a power of two that brings their largest coefficient below 2^14."""
MOST_VIOLATIONS = 50
"""Networks that violate a bound, by what HiGHS tolerates, before it is given up."""
COARSE = 2.0
"""A coefficient of so many times the least sum is too large beside it."""
FIRST_COLUMNS = 0.25
"""The share of columns that is tried first."""
TOLERANCE = 1e-6
OPTIMAL, INFEASIBLE = 0, 2
"""Statuses of SciPy's results."""


@dataclass(frozen=True)
class Bound:
    """`quantity`, summed over the pieces of a network, is at most `most`."""

    quantity: Quantity
    most: float


@dataclass(frozen=True)
class Choice:
    """A network that meets all bounds. None that meets them has a smaller value than `at_least`, which is proven."""

    configuration: tuple[float, ...]
    value: float
    at_least: float

    @property
    def gap(self) -> float:
        """By which share of its value another network could be better; up to rounding 0 where it is the best."""
        return (self.value - self.at_least) / abs(self.value) if self.value != self.at_least else 0.0


def choose(space: Space, minimise: Quantity, bounds: Sequence[Bound] = (), gap: float = 0.0) -> Choice | None:
    """The network with the least of `minimise` that meets all bounds; None where none meets them.

    `gap` is the relative one at which it is good enough. The same input gives the same of several equally good ones.
    """
    return _Program(space).best(minimise, bounds, gap)


def k_best(
    space: Space, minimise: Quantity, bounds: Sequence[Bound], k: int, differ_in: int = 1, gap: float = 0.0
) -> tuple[Choice, ...]:
    """Up to `k` networks, each the best of those that differ from all before it in at least so many modules."""
    program = _Program(space)
    found: list[Choice] = []
    while len(found) < k and (choice := program.best(minimise, bounds, gap)) is not None:
        found.append(choice)
        program.differ(choice.configuration, differ_in)
    return tuple(found)


def front(
    space: Space,
    loss: Quantity,
    cost: Quantity,
    budgets: Sequence[float] | int = 20,
    bounds: Sequence[Bound] = (),
    gap: float = 0.0,
) -> tuple[Choice, ...]:
    """The networks with the least loss under each budget of the cost, cheapest first; of equal loss the cheapest.

    So many `budgets` are spread evenly from the cheapest network to the cheapest of those with the least loss of all.
    None of the networks is as good in both as another; their values are losses.
    """
    program = _Program(space)

    def cheapest_below(budget: float) -> Choice | None:
        best = program.best(loss, [*bounds, Bound(cost, budget)], gap)
        if best is None:
            return None
        cheapest = program.best(cost, [*bounds, Bound(loss, best.value)], gap) or best
        return Choice(cheapest.configuration, space.total(loss, cheapest.configuration), best.at_least)

    if isinstance(budgets, int):
        cheapest, best = program.best(cost, bounds, gap), cheapest_below(math.inf)
        if cheapest is None or best is None:
            return ()
        least, most = (space.total(cost, end.configuration) for end in (cheapest, best))
        return front(space, loss, cost, np.linspace(least, most, budgets).tolist(), bounds, gap)
    found: list[Choice] = []
    lowest = math.inf
    for budget in sorted(budgets, reverse=True):
        if budget < lowest and (choice := cheapest_below(budget)) is not None:
            lowest = space.total(cost, choice.configuration)
            found.append(choice)
    return tuple(reversed(found))


class _Program:
    """The variables of a space, and the rows that hold whatever is asked of it."""

    def __init__(self, space: Space):
        self.space = space
        self._first = np.cumsum([0, *map(len, space.options)]).tolist()
        self._apart: list[tuple[tuple[float, ...], int]] = []
        self._columns: dict[Symbol, int] = {}
        self._count = self._binaries = self._first[-1]
        self._fixed = _Rows()
        for first, behind in pairwise(self._first):
            self._fixed.add(range(first, behind), np.ones(behind - first), 1, 1)
        for position in range(len(space.modules) + 1):
            self._add_pieces(position)

    def _add_pieces(self, position: int) -> None:
        """Gives each piece at a position its column: new ones with marginals where several modules decide."""
        space = self.space
        participants = space.participants(position)
        shape = [len(space.options[module]) for module in participants]
        first = self._first[participants[0]] if len(participants) == 1 else self._count
        columns = np.arange(first, first + math.prod(shape)).reshape(shape)
        self._columns.update(zip(space.pieces(position), columns.ravel().tolist(), strict=True))
        if len(participants) == 1:
            return
        self._count += columns.size
        for axis, module in enumerate(participants):
            for option, part in enumerate(np.moveaxis(columns, axis, 0)):
                signs = np.r_[np.ones(part.size), -1]
                self._fixed.add([*part.ravel(), self._first[module] + option], signs, 0, 0)
        if not participants:
            self._fixed.add([first], np.ones(1), 1, 1)

    def differ(self, configuration: tuple[float, ...], modules: int) -> None:
        """Leaves only networks that have another option than `configuration` in so many modules."""
        self._apart.append((configuration, modules))

    def best(self, minimise: Quantity, bounds: Sequence[Bound], gap: float) -> Choice | None:
        found = self._best(minimise, bounds, gap)
        while found is not None and self._is_coarse(minimise, bounds, found.value):
            bounds = [*bounds, Bound(minimise, found.value)]
            found = self._best(minimise, bounds, gap) or found
        return found

    def _is_coarse(self, minimise: Quantity, bounds: Sequence[Bound], least: float) -> bool:
        coefficients = np.delete(self._coefficients(minimise), self._excluded(bounds))
        return bool(least > 0 and coefficients.min() >= 0 and coefficients.max() > COARSE * least)

    def _best(self, minimise: Quantity, bounds: Sequence[Bound], gap: float) -> Choice | None:
        rows, excluded = self._fixed.copy(), self._excluded(bounds)
        if excluded.size:
            rows.add(excluded.tolist(), np.ones(excluded.size), -math.inf, 0)
        for configuration, modules in self._apart:
            self._add_difference(rows, configuration, modules)
        for bound in bounds:
            if bound.most < math.inf:
                coefficients, exponent = self._scaled(bound.quantity, excluded)
                rows.add(range(self._count), coefficients, -math.inf, math.ldexp(bound.most, exponent))
        objective, exponent = self._scaled(minimise, excluded)
        proven = -math.inf
        for _ in range(MOST_VIOLATIONS):
            solution = self._solve(rows, objective, gap)
            if solution is None:
                return None
            configuration, at_least = solution
            proven = max(proven, math.ldexp(at_least, -exponent))
            if all(self.space.total(bound.quantity, configuration) <= bound.most for bound in bounds):
                value = self.space.total(minimise, configuration)
                return Choice(configuration, value, min(proven, value))
            self._add_difference(rows, configuration, 1)
        raise WootzError(f"HiGHS gave {MOST_VIOLATIONS} networks one after the other that do not meet the bounds")

    def _excluded(self, bounds: Sequence[Bound]) -> np.ndarray:
        """The columns of pieces that alone are more than a bound allows, where nothing is negative."""
        excluded = np.zeros(self._count, bool)
        for bound in bounds:
            coefficients = self._coefficients(bound.quantity)
            if coefficients.min() >= 0:
                excluded |= coefficients > bound.most
        return np.flatnonzero(excluded)

    def _add_difference(self, rows: _Rows, configuration: tuple[float, ...], modules: int) -> None:
        chosen = zip(self._first, self.space.options, configuration, strict=False)
        columns = [first + options.index(rate) for first, options, rate in chosen]
        rows.add(columns, np.ones(len(columns)), -math.inf, len(columns) - modules)

    def _coefficients(self, quantity: Quantity) -> np.ndarray:
        """Those of all columns."""
        coefficients = np.zeros(self._count)
        np.add.at(coefficients, list(self._columns.values()), [quantity[piece] for piece in self._columns])
        return coefficients

    def _scaled(self, quantity: Quantity, excluded: np.ndarray) -> tuple[np.ndarray, int]:
        """The coefficients times a power of two, and its exponent; 0 in excluded columns."""
        coefficients = self._coefficients(quantity)
        coefficients[excluded] = 0
        exponent = COEFFICIENT_BITS - math.frexp(np.abs(coefficients).max())[1]
        return np.ldexp(coefficients, exponent), exponent

    def _solve(self, rows: _Rows, objective: np.ndarray, gap: float) -> tuple[tuple[float, ...], float] | None:
        """A best network as far as HiGHS can tell, and what it proves that all have at least."""
        with _without_messages():
            solution = _minimum(objective, rows.constraint(self._count), gap)
        if solution is None:
            return None
        values, at_least = solution
        chosen = [int(np.argmax(values[first:behind])) for first, behind in pairwise(self._first)]
        configuration = tuple(options[option] for options, option in zip(self.space.options, chosen, strict=True))
        return configuration, at_least


def _minimum(
    objective: np.ndarray, rows: scipy.optimize.LinearConstraint, gap: float
) -> tuple[np.ndarray, float] | None:
    """Whole numbers with the least sum, and a bound of that sum from below; None where the rows leave none.

    A network with a column of reduced cost r has at least the relaxation's minimum and r. So columns are left out whose
    reduced cost is large, and what is found without them is the best if it is not further from the relaxation. HiGHS
    may fail to solve that where coefficients differ by many orders of magnitude: then no column is left out.
    """
    relaxed = _relaxation(objective, rows)
    if relaxed.status == INFEASIBLE:
        return None
    is_relaxed = relaxed.status == OPTIMAL
    least, reduced_costs = (relaxed.fun, relaxed.lower.marginals) if is_relaxed else (0.0, np.zeros(len(objective)))
    allowed = np.quantile(reduced_costs, FIRST_COLUMNS) if is_relaxed else math.inf
    while True:
        kept = np.flatnonzero(reduced_costs <= allowed)
        part = scipy.optimize.LinearConstraint(rows.A[:, kept], rows.lb, rows.ub)
        result = _integer_solution(objective[kept], part, gap)
        if _has_solution(result):
            above = result.fun - least
            if above <= allowed:
                values = np.zeros(len(objective))
                values[kept] = result.x
                return values, min(result.mip_dual_bound, least + allowed)
            allowed = above + TOLERANCE
        elif len(kept) == len(objective):
            return None
        else:
            allowed = math.inf


def _integer_solution(
    objective: np.ndarray, rows: scipy.optimize.LinearConstraint, gap: float
) -> scipy.optimize.OptimizeResult:
    for presolve in (True, False):
        options, integrality = {"mip_rel_gap": gap, "presolve": presolve}, np.ones(len(objective))
        result = scipy.optimize.milp(objective, constraints=rows, integrality=integrality, options=options)
        if result.status in (OPTIMAL, INFEASIBLE):
            break
    return result


def _relaxation(objective: np.ndarray, rows: scipy.optimize.LinearConstraint) -> scipy.optimize.OptimizeResult:
    """The same in fractions of options; its `lower.marginals` are the reduced costs of columns."""
    is_equal = rows.lb == rows.ub
    above, equal = rows.A[~is_equal], rows.A[is_equal]
    return scipy.optimize.linprog(objective, above, rows.ub[~is_equal], equal, rows.ub[is_equal], method="highs")


def _has_solution(result: scipy.optimize.OptimizeResult) -> bool:
    if result.status not in (OPTIMAL, INFEASIBLE):
        raise WootzError(f"HiGHS could not choose a network: {result.message}")
    return bool(result.status == OPTIMAL)


@dataclass
class _Rows:
    """Rows of a program: sums of columns times coefficients, between two ends."""

    columns: list[np.ndarray] = field(default_factory=list)
    coefficients: list[np.ndarray] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)

    def copy(self) -> _Rows:
        return _Rows(list(self.columns), list(self.coefficients), list(self.ends))

    def add(self, columns: Sequence[int], coefficients: np.ndarray, least: float, most: float) -> None:
        self.columns.append(np.asarray(columns))
        self.coefficients.append(coefficients)
        self.ends.append((least, most))

    def constraint(self, count: int) -> scipy.optimize.LinearConstraint:
        begins = np.cumsum([0, *map(len, self.columns)])
        parts = np.concatenate(self.coefficients), np.concatenate(self.columns), begins
        matrix = scipy.sparse.csr_array(parts, shape=(len(self.ends), count))
        return scipy.optimize.LinearConstraint(matrix, *np.array(self.ends).T)


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Leads the process's standard output nowhere: HiGHS 1.12 prints a line there that no option turns off."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
