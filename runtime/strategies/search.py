"""The search of a whole space: pieces are pre-trained and scored, and an integer program says which networks to try.

    blocks ─> scores of each in place ─> candidates (integer program) ─> a look at each, untrained
      ^                                                                         │
      └─ rates in between <─ fine-tuned ones <─ the most promising ones <───────┴── predictor of final accuracies

Where modules have many rates, every second one is trained at first. Of the others those are trained later that the
solver's answers around the boundary would have, if they lost what their neighbours let one expect (`unscored`).

Candidates are the solver's answers for budgets over the whole range of costs, later around the boundary between the
networks that meet the objective and those that don't; how the losses of blocks add up is learned from looks
(`exponent`). Those that begin are one that needs no training, if there is one, and a few between it and the boundary,
where that is expected to be; from what these come to a predictor of final accuracies follows, by which the next ones
are chosen, until none is expected to be better than the best one. Where the networks of the space are listed, the
candidates are some of these; where the looks are enough for all, all are looked at, and no block is scored.

What a network has lost before training is expected to come back in part, the same part in all networks that leave
modules out, and in all that don't: that is the first feature of the predictor, and all of it until
FEWEST_FOR_REGRESSION networks were trained for ENOUGH_STEPS. Trainings that ended earlier, at the bound, count only
where they came to more than was expected: the rest of it is not known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from wootz.passes.blocks.groups import Group
from wootz.passes.errors import WootzError
from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Constraint, Measurements, Objective
from wootz.passes.plan.space import Quantity, Space
from wootz.passes.plan.subspace import SKIP, Configuration
from wootz.runtime.outcome import Failed
from wootz.runtime.strategies.choice import Bound, choose, front, k_best
from wootz.runtime.strategies.exponent import best_exponent
from wootz.runtime.strategies.predictor import FEWEST_FOR_REGRESSION, Predictor, fit
from wootz.runtime.strategies.unscored import Option, expected_losses
from wootz.runtime.tasks.task import FineTune, Finished, LookAt, PretrainBlocks, Results, ScoreNetworks, Task, reached
from wootz.runtime.uncertainty import Share

START = 4
"""Networks that are fine-tuned before a predictor says which; at most half of all."""
RECOVERED = 0.5
"""The part of the lost accuracy that fine-tuning is expected to bring back, before it is known."""
NOTHING_LOST = 0.01
"""Of an accuracy, or of the most that any network has lost of another quality: of networks that lost less before
training, the part that comes back can't be told."""
ENOUGH_STEPS = 1 / 3
"""Of a training, to tell what a network comes to: those that met the bound earlier may have become better."""
MARGIN = 2.0
"""The errors of the predictor by which a network may miss what is asked for and still be worth a training."""
MADE_UP = 0.5
"""The part of what a network misses the threshold by that a similar one has to be better by before training."""
NEXT_TO_NOTHING = 0.5
"""Standard errors of an accuracy: a network that misses the threshold by less says little of those like it."""
NOT_SURELY = 1.0
"""Standard errors of an accuracy: that one misses the threshold by less may be chance."""
ALIKE = 0.02
"""Costs, relatively, that are hardly different."""
COMPARED_SHARE = 1 / 3
"""Of the looks, at most, are at networks for comparison."""
LEAST_GAIN = 0.01
"""The part of the best network's cost that another one has to save to be worth a training."""
COARSE_SHARE = 0.5
"""Of the looks; the others are around the boundary."""
ROUNDS = 3
"""In which that is closed in on."""
A_BUDGET = 4
"""Candidates for each budget."""
FEWEST_GROUPS = 4
"""Of networks of a list, of about the same cost each, of which candidates are taken."""
MORE_ANSWERS = (1, 2, 4, 8)
"""Times the answers that are wanted, as long as too many of them are known."""
REFINEMENTS = 2
"""Rounds in which further rates are trained, where the boundary needs them."""
NEAR = 0.85
"""Of what may be spent: the most accurate network takes hardly less."""
NEW_SHARE = 1 / 3
"""Of the options that are there at first, at most so many are added in a refinement."""
NETWORKS_A_LOOK = 10
"""Networks in a task."""
LEAST_LOSS = 1e-6
"""Nats: below it divergences are rounding."""
LEAST_SHARE = 1e-3
"""Of the full network's cost: networks that cost less are alike."""


@dataclass(frozen=True)
class Solved:
    """Answers of the solver, and the largest share of a predicted loss by which another network might beat one of them:
    proven, and 0 up to rounding."""

    configurations: tuple[Configuration, ...]
    gap: float


@dataclass(frozen=True)
class Search:
    """Searches `space` for networks as `objective` asks, of which `most` are fine-tuned and `looks` looked at.

    `costs` has for each metric that is known before training what each piece adds to it, `full` all metrics of the full
    network; `groups` are the space's blocks, by what can be trained in one graph. `beside` are looked at for
    comparison, and may be chosen as any other; `known` are fine-tuned first, which costs nothing: their results are
    there. With several `workers` that many networks are chosen at a time. Trainings have so many `steps`, and qualities
    are measured on so many `images`. What is called accuracy here is any `quality`, with its sign turned where lower is
    better.

    Networks are numbered in the order in which the search meets them: see `networks`.
    """

    space: Space
    costs: Mapping[Metric, Quantity]
    objective: Objective
    full: Measurements
    groups: tuple[Group, ...]
    most: int
    looks: int
    steps: int
    images: int
    quality: Metric = Metric.ACCURACY
    beside: tuple[Configuration, ...] = ()
    known: tuple[Configuration, ...] = ()
    workers: int = 1
    _memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def propose(self, finished: Mapping[Task, Results]) -> tuple[Task, ...]:
        return self.course(finished).missing

    def course(self, finished: Mapping[Task, Results]) -> Course:
        """How the search went so far: the same results give the same course."""
        course = Course(self, finished)
        course.advance()
        return course

    # The options

    @cached_property
    def listed(self) -> tuple[Configuration, ...]:
        """The networks of the list that meet the bounds which are known before training."""
        return tuple(c for c in self.space.listed if self.is_feasible(self.measured(c)))

    @property
    def looks_at_all_listed(self) -> bool:
        """Whether there is a list, and nothing to choose from it: no block's score is needed then."""
        return 0 < len(self.listed) <= self.looks

    @cached_property
    def first_space(self) -> Space:
        """What is trained at first: all, where that is little, or listed, or where the bounds need it."""
        if self.space.listed:
            return self.space
        thinned = self.space.thinned
        is_enough = self.space.count > self.looks and self.least_cost(thinned) is not None
        return thinned if is_enough else self.space

    def trainings(self, options: Collection[Option]) -> tuple[PretrainBlocks, ...]:
        """Of the blocks of these options: those that the full network has where it has one of them."""
        stars = (star for star in self.space.stars if self.options_of([star])[0] in options)
        pieces = {piece for star in stars for piece in self.space.spell(star)}
        wanted = ([block for block in group if pieces.issuperset(block.symbols)] for group in self.groups)
        return tuple(PretrainBlocks(tuple(group)) for group in wanted if group)

    def options_of(self, configurations: Iterable[Configuration]) -> list[Option]:
        """The modules at the rates that networks have, each once."""
        pruned = ((m, r) for c in configurations for m, r in enumerate(c) if r and not isinstance(r, tuple))
        return list(dict.fromkeys(pruned))

    # The objective

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints that are known before training."""
        return tuple(c for c in self.objective.constraints if not c.metric.needs_training)

    @cached_property
    def threshold(self) -> float:
        """The least accuracy that meets the objective; minus infinity where it asks for none."""
        asked = ((c, self.quality.sign * c.bound(self.full)) for c in self.objective.bounds_of_quality)
        least = (bound if "=" in c.comparison else math.nextafter(bound, math.inf) for c, bound in asked)
        return max(least, default=-math.inf)

    @cached_property
    def cost(self) -> Metric:
        """What accuracy is paid with: the objective's metric, or else that of its first bound."""
        if not self.objective.metric.needs_training:
            return self.objective.metric
        return next((c.metric for c in self.bounds), Metric.MODEL_SIZE)

    @property
    def of_full(self) -> float:
        """The full network's accuracy."""
        return self.quality.sign * self.full[self.quality]

    @property
    def maximises_accuracy(self) -> bool:
        return self.objective.metric.needs_training

    def measured(self, configuration: Configuration) -> Measurements:
        """What is known of a network before its training."""
        return {metric: self.space.total(pieces, configuration) for metric, pieces in self.costs.items()}

    def is_feasible(self, measured: Measurements) -> bool:
        return all(c.holds(measured, self.full) for c in self.bounds)

    # The solver

    def solved(
        self, space: Space, losses: Mapping[Option, float], window: tuple[float, float], count: int, a_budget: int
    ) -> Solved:
        """About `count` answers of the solver for budgets of the cost within a window, `a_budget` for each; all
        networks of the space, if there are no more than that."""
        key = (space.options, tuple(losses.values()), window, count, a_budget)
        if key not in self._memo:
            self._memo[key] = self._solved(space, space.by_option(losses), window, count, a_budget)
        found: Solved = self._memo[key]
        return found

    def _solved(self, space: Space, losses: Quantity, window: tuple[float, float], count: int, a_budget: int) -> Solved:
        if space.listed:
            return Solved(self._best_of_list(losses, window, count, a_budget), 0.0)
        if space.count <= count:
            return Solved(tuple(filter(any, space.configurations())), 0.0)
        cost, bounds = self.costs[self.cost], self._solver_bounds
        apart = max(1, len(space.modules) // 8)
        budgets = self._budgets(*window, max(1, count // a_budget))
        points = front(space, losses, cost, budgets, bounds)
        choices = list(points)
        for point in points if a_budget > 1 else ():
            below = Bound(cost, space.total(cost, point.configuration))
            choices += k_best(space, losses, (*bounds, below), a_budget, apart)
        configurations = filter(any, dict.fromkeys(choice.configuration for choice in choices))
        return Solved(tuple(configurations)[:count], max((choice.gap for choice in choices), default=0.0))

    def _best_of_list(
        self, losses: Quantity, window: tuple[float, float], count: int, a_budget: int
    ) -> tuple[Configuration, ...]:
        """Of the listed networks within the window, in groups of about the same cost, those of each that lose least."""
        cost = {c: self.space.total(self.costs[self.cost], c) for c in self.listed}
        within = sorted((c for c in self.listed if window[0] <= cost[c] <= window[1]), key=lambda c: cost[c])
        if len(within) <= count:
            return tuple(within)
        groups = np.array_split(np.arange(len(within)), max(min(count, FEWEST_GROUPS), count // a_budget))
        alike = ([within[position] for position in group] for group in groups)
        of_each = count // len(groups)
        return tuple(c for group in alike for c in sorted(group, key=partial(self.space.total, losses))[:of_each])

    def _budgets(self, low: float, high: float, count: int) -> list[float]:
        """So many between both, evenly by their logarithms; where accuracy is the aim, all may be spent."""
        parts = (np.arange(count) + 1) / (count + (not self.maximises_accuracy))
        low = max(low, LEAST_SHARE * high)
        budgets: list[float] = (low * (high / low) ** parts).tolist()
        return budgets

    @cached_property
    def _solver_bounds(self) -> tuple[Bound, ...]:
        return tuple(self._solver_bound(c) for c in self.bounds)

    def _solver_bound(self, constraint: Constraint) -> Bound:
        pieces, bound = self.costs[constraint.metric], constraint.bound(self.full)
        if constraint.comparison[0] == "<":
            return Bound(pieces, bound)
        return Bound({symbol: -value for symbol, value in pieces.items()}, -bound)

    def least_cost(self, space: Space) -> float | None:
        """Of any network of a space within the bounds; None where there is none."""
        if space.listed:
            return min((self.measured(c)[self.cost] for c in self.listed), default=None)
        if space.options not in self._memo:
            least = choose(space, self.costs[self.cost], self._solver_bounds)
            self._memo[space.options] = None if least is None else least.value
        found: float | None = self._memo[space.options]
        return found


def check_bounds(space: Space, costs: Mapping[Metric, Quantity], objective: Objective, full: Measurements) -> None:
    """Raises WootzError where no network of the space can meet the bounds that are known before training."""
    known = [c for c in objective.constraints if not c.metric.needs_training]
    where, more = ("the list", "configurations") if space.listed else ("the space", "--rates")
    for constraint in known:
        quantity = costs[constraint.metric]
        values = [space.total(quantity, configuration) for configuration in _ends(space, quantity)]
        if not any(constraint.holds({constraint.metric: value}, full) for value in values):
            raise WootzError(
                f"no network of {where} can meet '{constraint}': {constraint.metric} goes from "
                f"{min(values):g} to {max(values):g} (unpruned: {full[constraint.metric]:g}); relax it, or add {more}"
            )
    search = Search(space, costs, objective, full, groups=(), most=1, looks=1, steps=1, images=1)
    if search.least_cost(space) is None:
        raise WootzError(f"no network of {where} meets all bounds of '{objective}' together: relax one, or add {more}")


def _ends(space: Space, quantity: Quantity) -> Iterable[Configuration]:
    """Networks among which are those of the least and the largest value."""
    if space.listed:
        return space.listed
    ends = choose(space, quantity), choose(space, {piece: -value for piece, value in quantity.items()})
    return (end.configuration for end in ends if end is not None)


def leaves_out(configuration: Configuration) -> bool:
    """Whether a network is without a module: other networks seem worse before fine-tuning, which brings more back."""
    return SKIP in configuration


@dataclass
class Course:
    """A search as it went with what is `finished`, replayed from its beginning: nothing is kept in between.

    `missing` are the tasks that it waits for: none at its end. `networks` are those met so far, with their numbers;
    `trainings` those of blocks so far, `options` what networks can be assembled of, and `losses` what these lose, which
    adds up by the `exponent` (see exponent.py). `gap` is the largest of all answers of the solver.
    """

    search: Search
    finished: Mapping[Task, Results]
    missing: tuple[Task, ...] = ()
    networks: dict[Configuration, int] = field(default_factory=dict)
    trainings: list[PretrainBlocks] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    losses: dict[Option, float] = field(default_factory=dict)
    exponent: float = 1.0
    looked: dict[Configuration, float] = field(default_factory=dict)
    tried: list[Configuration] = field(default_factory=list)
    recovered: dict[bool, float] = field(default_factory=lambda: dict.fromkeys((False, True), RECOVERED))
    predictor: Predictor | None = None
    is_regression: bool = False
    is_complete: bool = False
    gap: float = 0.0

    def advance(self) -> None:
        for needed in self._stages():
            self.missing = tuple(task for task in needed if task not in self.finished)
            if self.missing:
                return

    def _stages(self) -> Iterator[Sequence[Task]]:
        """What is needed next, each time after all before is finished."""
        search = self.search
        self._meet((*search.space.stars, *search.beside))
        first = search.first_space
        yield from self._add(search.options_of((*(search.listed or first.stars), *search.known)))
        low = search.least_cost(first)
        if low is None:
            return
        least = search.least_cost(search.space)
        assert least is not None, "the first space is a part of the whole one"
        window, of_all_rates = (low, self._highest()), (least, self._highest())
        compared = search.beside[: int(COMPARED_SHARE * search.looks)]
        coarse, fine = self._shares(search.looks - len(compared))
        if search.space.count <= search.looks or search.looks_at_all_listed:
            compared, coarse = (), search.looks
        yield from self._look((*search.known, *compared, *self._solved(window, coarse)))
        yield from self._try(search.known)
        begin = self._halve if search.space.listed and not search.maximises_accuracy else self._try
        yield from begin(self._first())
        for number in range(ROUNDS):
            yield from self._close_in(of_all_rates, fine, trains=number < REFINEMENTS)
            if not self._is_last_chance:
                yield from self._try(self._promising())
        seen = 0
        while seen < len(self.looked):
            seen = len(self.looked)
            while batch := self._promising():
                yield from self._try(batch)
            if self._left:
                yield from self._close_in(of_all_rates, min(fine, search.looks - seen), trains=False)
        has_seen_enough = self.is_regression or self._has_seen_all or self._is_cheapest
        self.is_complete = not self._ranked and not self.is_doubtful and has_seen_enough

    def _close_in(self, window: tuple[float, float], looks: int, trains: bool) -> Iterator[Sequence[Task]]:
        """Looks at so many networks around the boundary, if it `trains` of options that are trained for it, too."""
        if looks > 0:
            around = self._window(*window)
            self._learn_exponent(around[0])
            if trains:
                yield from self._add(self._missed(around, looks))
            yield from self._look(self._new(around, looks))

    def _new(self, window: tuple[float, float], count: int) -> list[Configuration]:
        """Answers of the solver that were not looked at: so many, if it has them."""
        for factor in MORE_ANSWERS:
            answers = [c for c in self._solved(window, factor * count) if c not in self.looked]
            if len(answers) >= count:
                break
        return answers[:count]

    @property
    def _has_seen_all(self) -> bool:
        """Whether no network of the space was left out, or of a list none around the boundary."""
        if not self.search.listed:
            return len(self.looked) >= self.search.space.count - 1
        low, high = (0.0, math.inf) if self.search.maximises_accuracy else self._window(0.0, self._highest())
        return all(c in self.looked for c in self.search.listed if low <= self._cost(c) <= high)

    @property
    def _is_cheapest(self) -> bool:
        """Whether no network of the space could be cheaper than the best one."""
        least = self.search.least_cost(self.search.space)
        return not self.search.maximises_accuracy and least is not None and least >= (1 - LEAST_GAIN) * self._best_cost

    @staticmethod
    def _shares(looks: int) -> tuple[int, int]:
        """Looks at first, and in each round."""
        fine = int(looks * (1 - COARSE_SHARE) / ROUNDS)
        return looks - ROUNDS * fine, fine

    # Tasks

    def _meet(self, configurations: Sequence[Configuration]) -> list[int]:
        """The numbers of networks, new ones behind those met before."""
        return [self.networks.setdefault(c, len(self.networks)) for c in configurations]

    def _add(self, options: Sequence[Option]) -> Iterator[Sequence[Task]]:
        """Trains the blocks of options, and scores them in place."""
        new = [option for option in dict.fromkeys(options) if option not in self.options]
        trainings = self.search.trainings(new)
        self.trainings += trainings
        yield trainings
        scorings = [] if self.search.looks_at_all_listed else self._scorings(new)
        yield scorings
        self._read_scores(scorings)
        self.options += new

    def _scorings(self, options: Collection[Option]) -> list[ScoreNetworks]:
        """The networks with one block each, dealt out to the workers module by module."""
        stars = enumerate(self.search.space.stars)
        numbers = np.array([number for number, star in stars if self.search.options_of([star])[0] in options], int)
        return [
            ScoreNetworks(tuple(part.tolist())) for part in np.array_split(numbers, self.search.workers) if len(part)
        ]

    def _read_scores(self, scorings: Sequence[ScoreNetworks]) -> None:
        stars = self.search.space.stars
        for task in scorings:
            for number, result in zip(task.networks, self.finished[task], strict=True):
                (option,) = self.search.options_of([stars[number]])
                if not isinstance(result.outcome, Failed) and math.isfinite(result.outcome["divergence"]):
                    self.losses[option] = max(LEAST_LOSS, result.outcome["divergence"])

    @property
    def _space(self) -> Space:
        """The networks that can be assembled so far."""
        space, known = self.search.space, set(self.options)
        options = (tuple(r for r in of if not r or (m, r) in known) for m, of in enumerate(space.options))
        return replace(space, options=tuple(options))

    def _solved(self, window: tuple[float, float], count: int) -> tuple[Configuration, ...]:
        """The solver's answers among the networks that can be assembled."""
        space = self._space
        losses = {(m, r): self._loss_of((m, r)) if r else 0.0 for m, of in enumerate(space.options) for r in of}
        return self._answers(space, losses, window, count, A_BUDGET)

    def _answers(
        self, space: Space, losses: Mapping[Option, float], window: tuple[float, float], count: int, a_budget: int
    ) -> tuple[Configuration, ...]:
        summed = {option: loss**self.exponent for option, loss in losses.items()}
        solved = self.search.solved(space, summed, window, count, a_budget)
        self.gap = max(self.gap, solved.gap)
        return solved.configurations

    def _missed(self, window: tuple[float, float], count: int) -> list[Option]:
        """Options that are not trained, and that the solver would choose within a window: those first that more of its
        answers have."""
        search = self.search
        losses = expected_losses(search.space.options, self.losses)
        answers = self._answers(search.space, losses, window, count, 1)
        uses = Counter(option for answer in answers for option in search.options_of([answer]))
        most = math.ceil(NEW_SHARE * len(search.options_of(search.first_space.stars)))
        return [option for option, _ in uses.most_common() if option not in self.options][:most]

    def _look(self, configurations: Sequence[Configuration]) -> Iterator[Sequence[Task]]:
        new = [c for c in dict.fromkeys(configurations) if c not in self.looked]
        self._meet(new)
        alike_together = sorted(new, key=lambda c: [rate if isinstance(rate, tuple) else (rate,) for rate in c])
        numbers = [self.networks[c] for c in alike_together]
        tasks = [LookAt(tuple(numbers[i : i + NETWORKS_A_LOOK])) for i in range(0, len(numbers), NETWORKS_A_LOOK)]
        yield tasks
        by_number = {number: c for c, number in self.networks.items()}
        for task in tasks:
            for number, result in zip(task.networks, self.finished[task], strict=True):
                if not isinstance(result.outcome, Failed):
                    self.looked[by_number[number]] = self.search.quality.sign * result.outcome["quality"]

    def _try(self, configurations: Sequence[Configuration]) -> Iterator[Sequence[Task]]:
        new = [c for c in configurations if c not in self.tried]
        yield [FineTune(number) for number in self._meet(new)]
        self.tried += new
        self._learn()

    def _halve(self, span: Sequence[Configuration]) -> Iterator[Sequence[Task]]:
        """Tries the middle one of a span of networks, then that of those which are still open, and so on: as many at a
        time as there are workers. Where none at all is expected to be accurate enough, the surest ones show it."""
        workers = self.search.workers
        while left := [c for c in span if c in self._better]:
            surest = self._surest[:workers]
            if self._expected(surest)[surest[0]] < self.search.threshold:
                yield from self._try(surest)
                return
            middle = [left[(2 * i + 1) * len(left) // (2 * workers)] for i in range(workers)]
            yield from self._try(list(dict.fromkeys(middle)))

    # What is learned

    def _learn_exponent(self, least_cost: float) -> None:
        """From the networks that cost no less, which those to choose from resemble."""
        dear = [c for c in self.looked if self._cost(c) >= least_cost]
        losses = [self._losses_of(c) for c in dear]
        self.exponent = best_exponent(losses, [self._share(c) for c in dear], [self.looked[c] for c in dear])
        self._learn()

    def _learn(self) -> None:
        """A predictor of the final accuracy from what was tried."""
        looked = (c for c in self.tried if c in self.looked)
        known = {c: a for c in looked if (a := self.accuracy(c)) is not None}
        self._fit({c: a for c, a in known.items() if self._is_known(c)})
        more = {c: a for c, a in known.items() if self._is_known(c) or a > (self.predicted(c) or 0.0)}
        self._fit(more)

    def _fit(self, known: Mapping[Configuration, float]) -> None:
        if known:
            most = 1.0 if self.search.quality.is_share else max(0.0, *map(self._lost, self.looked))
            nothing = NOTHING_LOST * most
            shares = {c: (a - self.looked[c]) / lost for c, a in known.items() if (lost := self._lost(c)) > nothing}
            for kind in self.recovered:
                alike = [share for c, share in shares.items() if leaves_out(c) == kind] or list(shares.values())
                self.recovered[kind] = min(1.0, max(0.0, float(np.mean(alike)))) if alike else RECOVERED
            self.predictor = fit(np.array([self._features(c) for c in known]), np.array(list(known.values())))
            self.is_regression = len(known) >= FEWEST_FOR_REGRESSION

    # What is known

    @property
    def blocks(self) -> dict[TuningBlock, Finished]:
        """How the trainings of blocks ended that are finished."""
        done = ((training, self.finished[training]) for training in self.trainings if training in self.finished)
        return {
            block: found for training, results in done for block, found in zip(training.blocks, results, strict=True)
        }

    def accuracy(self, configuration: Configuration) -> float | None:
        """Of a network after its fine-tuning; None where that failed, or was not needed."""
        number = self.networks.get(configuration)
        if number is None or (results := self.finished.get(FineTune(number))) is None:
            return None
        (result,) = results
        if isinstance(result.outcome, Failed):
            return None
        return self.search.quality.sign * reached(result.outcome)

    def loss(self, configuration: Configuration) -> float:
        """The predicted loss of a network, in nats: the norm of its blocks' losses. Means nothing before these are
        known."""
        return float(np.linalg.norm(self._losses_of(configuration), self.exponent))

    def _losses_of(self, configuration: Configuration) -> list[float]:
        return [self._loss_of(option) for option in self.search.options_of([configuration])]

    def _loss_of(self, option: Option) -> float:
        """The worst one where a block could not be scored."""
        return self.losses.get(option, max(self.losses.values(), default=1.0))

    def predicted(self, configuration: Configuration) -> float | None:
        """The accuracy expected after fine-tuning a network that was looked at: no less than before, since the best
        weights are kept."""
        return self._expected([configuration]).get(configuration)

    def _expected(self, configurations: Iterable[Configuration]) -> dict[Configuration, float]:
        """What is predicted of those that were looked at."""
        looked = [c for c in configurations if c in self.looked]
        if not looked:
            return {}
        features, most = np.array([self._features(c) for c in looked]), self._most_accurate
        expected = features[:, 0] if self.predictor is None else self.predictor.predict(features)
        return {c: max(self.looked[c], min(float(e), most)) for c, e in zip(looked, expected, strict=True)}

    @property
    def _most_accurate(self) -> float:
        """No network is expected to be more accurate than the full one, and those that are known."""
        known = (a for c in self.tried if (a := self.accuracy(c)) is not None)
        return max(self.search.of_full, *known, *self.looked.values())

    @property
    def prediction_error(self) -> float | None:
        """The predictor's, in accuracy; None where too few networks were trained for long enough to know it."""
        return self.predictor.leave_one_out_error if self.predictor is not None and self.is_regression else None

    @property
    def _error(self) -> float:
        """By how much predictions may be off: by what an accuracy is uncertain, too."""
        known = self.prediction_error
        return math.inf if known is None else max(known, self._uncertainty(self.search.threshold))

    def _uncertainty(self, accuracy: float) -> float:
        if not self.search.quality.is_share:
            return 0.0
        return Share(min(1.0, max(0.0, accuracy)), self.search.images).standard_error

    def _is_known(self, configuration: Configuration) -> bool:
        """Whether a network was trained for long enough to tell what it comes to."""
        (result,) = self.finished[FineTune(self.networks[configuration])]
        assert not isinstance(result.outcome, Failed)
        steps: int = result.outcome["steps"]
        return steps >= ENOUGH_STEPS * self.search.steps

    def _lost(self, configuration: Configuration) -> float:
        """What a network is less accurate than the full one, before training."""
        return self.search.of_full - self.looked[configuration]

    def _features(self, configuration: Configuration) -> np.ndarray:
        recovered = self.recovered[leaves_out(configuration)]
        return np.array([
            self.looked[configuration] + recovered * max(0.0, self._lost(configuration)),
            math.log(self.loss(configuration) + LEAST_LOSS),
            math.log(self._share(configuration)),
        ])  # fmt: skip

    def _cost(self, configuration: Configuration) -> float:
        return self.search.measured(configuration)[self.search.cost]

    def _share(self, configuration: Configuration) -> float:
        """What a network costs of the full one's cost."""
        return max(LEAST_SHARE, self._cost(configuration) / self.search.full[self.search.cost])

    # What is worth trying

    @property
    def _eligible(self) -> list[Configuration]:
        """Those looked at and not yet tried that meet all bounds known before training."""
        measured = self.search.measured
        return [c for c in self.looked if c not in self.tried and any(c) and self.search.is_feasible(measured(c))]

    def _first(self) -> list[Configuration]:
        """Networks to begin with: the one that seems best without any training, and some that span the front, down to
        the cheapest one that is expected to be accurate enough."""
        if not self._left:
            return []
        pool = self._better
        if self.search.threshold == -math.inf and not self.search.maximises_accuracy:
            return sorted(pool, key=self._cost)[:1]
        if self.search.maximises_accuracy:
            sure = sorted(pool, key=lambda c: -self.looked[c])[:1]
        else:
            needed = self.search.threshold + self._uncertainty(self.search.threshold)
            sure = sorted((c for c in pool if self.looked[c] >= needed), key=self._cost)[:1]
            if not sure and self._is_last_chance:
                return []
        worth = [c for c in pool if self.search.maximises_accuracy or not sure or self._cost(c) < self._cost(sure[0])]
        least = min(
            (self._cost(c) for c, e in self._expected(worth).items() if e >= self.search.threshold), default=0.0
        )
        worth = [c for c in worth if self._cost(c) >= least]
        count = max(1, min(START, self._left // 2)) - len(sure)
        spread = self._spread(worth, count)
        if count > 1 and all(map(leaves_out, spread)):
            spread = [*self._spread(worth, count - 1), *self._spread([c for c in worth if not leaves_out(c)], 1)]
        return list(dict.fromkeys([*sure, *spread]))

    def _spread(self, pool: Sequence[Configuration], count: int) -> list[Configuration]:
        """So many networks that span the front of accuracy without training over cost."""
        on_front: list[Configuration] = []
        for configuration in sorted(pool, key=lambda c: (-self.looked[c], self._cost(c))):
            if not on_front or self._cost(configuration) < self._cost(on_front[-1]):
                on_front.append(configuration)
        if len(on_front) <= count:
            return on_front
        costs = np.log([self._share(c) for c in on_front])
        parts = (np.arange(count) + 0.5) / max(1, count)
        wanted = costs[0] + parts * (costs[-1] - costs[0])
        return list(dict.fromkeys(on_front[int(np.argmin(abs(costs - cost)))] for cost in wanted))

    def _promising(self) -> list[Configuration]:
        """As many as there are workers of those that may be better than the best one, the most promising first."""
        return self._ranked[: min(self._left, self.search.workers)]

    @property
    def _ranked(self) -> list[Configuration]:
        return self._ranked_by_accuracy() if self.search.maximises_accuracy else self._ranked_by_cost()

    def _ranked_by_accuracy(self) -> list[Configuration]:
        """Those that may be more accurate than the best one, by the predictor's error."""
        expected = self._expected(self._eligible)
        best = max((a for c in self._accurate if (a := self.accuracy(c)) is not None), default=-math.inf)
        return sorted((c for c, e in expected.items() if e + self._error > best), key=lambda c: -expected[c])

    def _ranked_by_cost(self) -> list[Configuration]:
        """The cheapest of those that are expected to be accurate enough; then those that may be, by their chance.

        While none is found, the last networks that may be tried are the surest ones.
        """
        threshold, expected, surest = self.search.threshold, self._expected(self._better), self._surest
        if self._is_last_chance:
            return surest
        enough = sorted((c for c, e in expected.items() if e >= threshold), key=self._cost)
        return [*enough, *(c for c in surest if threshold - MARGIN * self._error <= expected[c] < threshold)]

    @property
    def _surest(self) -> list[Configuration]:
        """Those that would be better than the best one, the most accurate ones first."""
        expected = self._expected(self._better)
        return sorted(expected, key=lambda c: -expected[c])

    @property
    def _is_last_chance(self) -> bool:
        """Whether none meets the threshold yet, and few may still be tried."""
        return not self._accurate and self._left <= max(1, self.search.most // 4)

    @property
    def _better(self) -> list[Configuration]:
        """Those that would be better than the best one, were they accurate enough, and of which nothing is known that
        speaks against it: a network that misses the threshold does so for all that are hardly better before training,
        of about the same cost or less. While none meets it, one that misses it by next to nothing doesn't."""
        return self._unlike(self._inaccurate if self._accurate else self._inaccurate_by(NEXT_TO_NOTHING))

    @property
    def is_doubtful(self) -> bool:
        """Whether networks were left out that are expected to meet the threshold, or may by the predictor's error:
        those like them may have missed it by chance only."""
        if self.search.maximises_accuracy:  # by which none is left out
            return False
        left_out = set(self._unlike(self._inaccurate_by(NOT_SURELY))) - set(self._better)
        error = math.inf if self.prediction_error is None else self.prediction_error
        least = self.search.threshold - MARGIN * error
        return any(expected >= least for expected in self._expected(left_out).values())

    def _unlike(self, inaccurate: Sequence[Configuration]) -> list[Configuration]:
        """The networks to choose from that are cheaper than the best one, and better than these."""
        most = (1 - LEAST_GAIN) * self._best_cost
        return [
            c
            for c in self._eligible
            if self._cost(c) < most and not any(self._is_hardly_better(c, m) for m in inaccurate)
        ]

    @property
    def _inaccurate(self) -> list[Configuration]:
        """The networks that were looked at and tried, and don't meet the threshold."""
        return [c for c in self.tried if c not in self._accurate and c in self.looked]

    def _inaccurate_by(self, errors: float) -> list[Configuration]:
        """Those of them that miss it by so many standard errors."""

        def misses(accuracy: float) -> bool:
            return accuracy + errors * self._uncertainty(accuracy) < self.search.threshold

        return [c for c in self._inaccurate if (a := self.accuracy(c)) is None or misses(a)]

    def _is_hardly_better(self, configuration: Configuration, than: Configuration) -> bool:
        reached = self.accuracy(than)
        missed_by = max(0.0, self.search.threshold - reached) if reached is not None and self._is_known(than) else 0.0
        is_dearer = self._cost(configuration) > (1 + ALIKE) * self._cost(than)
        recovers_more = leaves_out(than) and not leaves_out(configuration)
        return (
            not is_dearer
            and not recovers_more
            and self.looked[configuration] <= self.looked[than] + MADE_UP * missed_by
        )

    @property
    def _best_cost(self) -> float:
        return min((self._cost(c) for c in self._accurate), default=math.inf)

    @property
    def _accurate(self) -> list[Configuration]:
        """The networks that meet all constraints."""
        threshold, feasible = self.search.threshold, self.search.is_feasible
        enough = (c for c in self.tried if (a := self.accuracy(c)) is not None and a >= threshold)
        return [c for c in enough if feasible(self.search.measured(c))]

    @property
    def _left(self) -> int:
        """Fine-tunings that may still be done; those known before don't count."""
        return self.search.most - len([c for c in self.tried if c not in self.search.known])

    def _highest(self) -> float:
        """The highest cost that is of use: the full network's, or that of the bound; of a list the highest one."""
        if self.search.listed:
            return max(map(self._cost, self.search.listed))
        costs = self.search.full[self.search.cost]
        uppers = [c for c in self.search.bounds if c.metric == self.search.cost and c.comparison[0] == "<"]
        return min(costs, *(c.bound(self.search.full) for c in uppers)) if uppers else costs

    def _window(self, low: float, high: float) -> tuple[float, float]:
        """The costs between which the boundary is expected: from the dearest network that is likely to miss the
        threshold, though none that costs less is better, to the cheapest that meets it."""
        if self.search.maximises_accuracy:
            return NEAR * high, high
        threshold = self.search.threshold
        sure = (self._cost(c) for c in self._eligible if self.looked[c] >= threshold)
        met = min(high, self._best_cost, *sure)
        unlikely, best, dearest = threshold - self._uncertainty(threshold), -math.inf, low
        known = {c: a for c in self.tried if c in self.looked and (a := self.accuracy(c)) is not None}
        accuracies = self._expected(self.looked) | known
        for configuration in sorted((c for c in accuracies if self._cost(c) < met), key=self._cost):
            if accuracies[configuration] > best:
                best = accuracies[configuration]
                dearest = self._cost(configuration) if best < unlikely else dearest
        return max(low, dearest), met
