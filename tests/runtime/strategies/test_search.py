"""The search of a space, driven by an invented world in which every network has an accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.plan.blocks import TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Constraint, Objective
from wootz.passes.plan.space import Space
from wootz.passes.plan.subspace import SKIP, Configuration
from wootz.runtime.outcome import Failed
from wootz.runtime.strategies import search as search_module
from wootz.runtime.strategies.choice import Choice, front
from wootz.runtime.strategies.predictor import Predictor
from wootz.runtime.strategies.search import LEAST_GAIN, Search
from wootz.runtime.tasks.task import FineTune, Finished, LookAt, PretrainBlocks, Results, ScoreNetworks, Task
from wootz.runtime.uncertainty import Share

RATES = (0.0, 0.25, 0.5, 0.75)
EIGHTHS = tuple(i / 8 for i in range(8))
STEPS, IMAGES = 9, 2000
FEW_STEPS = STEPS // 3 - 1
"""Too few to tell what a network comes to."""
SMALLEST = Objective("min", Metric.MODEL_SIZE, (Constraint(Metric.ACCURACY, ">=", offset=-0.05, scale=1.0),))
MOST_ACCURATE = Objective("max", Metric.ACCURACY, (Constraint(Metric.MODEL_SIZE, "<=", offset=0.0, scale=0.6),))


@dataclass
class World:
    """Modules of some `sizes`, which lose accuracy by `importance` times the square of their rate; what a look sees is
    lower and noisy. With `ends_early_at` a training ends as soon as it has that accuracy, with `gives_up_below` it is
    given up long before the end if it wouldn't have that. Some are `as_good` as that after training, whatever else."""

    sizes: tuple[float, ...]
    importance: tuple[float, ...]
    noise: float = 0.01
    fails: frozenset[Configuration] = frozenset()
    ends_early_at: float | None = None
    gives_up_below: float | None = None
    rates: tuple[float, ...] = RATES
    as_good: Mapping[Configuration, float] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def space(self) -> Space:
        modules = tuple(f"m{i}" for i in range(len(self.sizes)))
        return Space(modules, (self.rates,) * len(modules))

    def search(self, objective: Objective = SMALLEST, most: int = 10, looks: int = 60, **more) -> Search:
        space = self.space
        size = {p: self.sizes[p.module] * (1 - p.rate) for i in range(len(self.sizes)) for p in space.pieces(i)}
        outside = next(space.pieces(len(self.sizes)))
        full = {Metric.MODEL_SIZE: sum(self.sizes) + 10.0, Metric.FLOPS: 1.0, Metric.ACCURACY: 0.9}
        blocks = {p: PretrainBlocks((TuningBlock((p,)),)) for p in size if p.rate}
        costs = {Metric.MODEL_SIZE: {**size, outside: 10.0}}
        return Search(
            space,
            costs,
            objective,
            full,
            tuple(training.blocks for training in blocks.values()),
            most,
            looks,
            STEPS,
            IMAGES,
            **more,
        )

    def accuracy(self, configuration: Configuration) -> float:
        lost = sum(w * r * r for w, r in zip(self.importance, configuration, strict=True))
        return max(0.0, 0.9 - lost)

    def result(self, task: Task, met: tuple[Configuration, ...]) -> Results:
        match task:
            case PretrainBlocks():
                return (Finished("", {}),)
            case ScoreNetworks(networks):
                lost = (0.9 - self.accuracy(met[n]) for n in networks)
                return tuple(Finished("", {"quality": 0.9 - x, "divergence": 2 * x, "error": x}) for x in lost)
            case LookAt(networks):
                seen = (1.5 * self.accuracy(met[n]) - 0.45 for n in networks)
                return tuple(Finished("", {"quality": x + self.noise * math.sin(1e4 * x)}) for x in seen)
            case FineTune(network):
                failed, accuracy = met[network] in self.fails, self.accuracy(met[network])
                accuracy = self.as_good.get(met[network], accuracy)
                if self.ends_early_at is not None and accuracy >= self.ends_early_at:
                    curve, ended, steps = [[0, self.ends_early_at]], "bound met", 0
                elif self.gives_up_below is not None and accuracy < self.gives_up_below:
                    curve, ended, steps = [[0, 0.1], [FEW_STEPS, accuracy / 2]], "given up", FEW_STEPS
                else:
                    curve, ended, steps = [[0, 0.1], [STEPS, accuracy]], "all steps", STEPS
                record = {"curve": curve, "kept": curve[-1][0], "ended": ended, "steps": steps}
                return (Finished("", Failed("no") if failed else record),)
        raise AssertionError(task)

    def carry_out(self, search: Search, seed: int | None = None) -> dict[Task, Results]:
        """All results, with a `seed` in a random order of those that could be had at the same time."""
        finished: dict[Task, Results] = {}
        order = np.random.default_rng(seed)
        while proposed := search.propose(finished):
            assert not set(proposed) & finished.keys()
            task = proposed[0] if seed is None else proposed[order.integers(len(proposed))]
            finished[task] = self.result(task, tuple(search.course(finished).networks))
        return finished


WORLD = World(sizes=(10.0, 21.0, 43.5, 30.25), importance=(0.02, 0.2, 0.05, 0.3))
BOUND = 0.6 * (104.75 + 10)


def tuned(finished: Mapping[Task, Results]) -> list[Task]:
    return [task for task in finished if isinstance(task, FineTune)]


def best_of(search: Search, finished: Mapping[Task, Results]) -> float:
    """The least size of a network that was fine-tuned and meets the bound of SMALLEST."""
    course = search.course(finished)
    enough = [c for c in course.tried if (a := course.accuracy(c)) is not None and a >= search.threshold]
    return min((search.measured(c)[Metric.MODEL_SIZE] for c in enough), default=math.inf)


def smallest(world: World, search: Search) -> float:
    """By brute force."""
    enough = (c for c in world.space.configurations() if world.accuracy(c) >= search.threshold)
    return min(search.measured(c)[Metric.MODEL_SIZE] for c in enough)


def test_it_finds_the_smallest_network_that_is_accurate_enough():
    search = WORLD.search()
    finished = WORLD.carry_out(search)
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= smallest(WORLD, search)
    assert search.course(finished).is_complete
    assert len(tuned(finished)) <= 10


def test_it_finds_the_most_accurate_network_of_a_size():
    search = WORLD.search(MOST_ACCURATE)
    finished = WORLD.carry_out(search)
    course = search.course(finished)
    assert all(search.measured(c)[Metric.MODEL_SIZE] <= BOUND for c in course.tried)
    possible = (c for c in WORLD.space.configurations() if search.measured(c)[Metric.MODEL_SIZE] <= BOUND)
    assert max(map(course.accuracy, course.tried)) == pytest.approx(max(map(WORLD.accuracy, possible)), abs=0.005)


def test_no_more_are_fine_tuned_than_allowed():
    for most in (1, 2, 5):
        search = WORLD.search(most=most)
        assert len(tuned(WORLD.carry_out(search))) <= most


def test_the_solver_has_proven_its_answers():
    search = WORLD.search()
    assert 0 <= search.course(WORLD.carry_out(search)).gap < 1e-6


def test_the_largest_gap_is_told(monkeypatch):
    gaps = iter([0.0, 0.02, *[0.01] * 100])

    def with_a_gap(*arguments: Any, **options: Any) -> tuple[Choice, ...]:
        share = next(gaps)
        return tuple(replace(choice, at_least=choice.value * (1 - share)) for choice in front(*arguments, **options))

    monkeypatch.setattr(search_module, "front", with_a_gap)
    search = WORLD.search()
    assert search.course(WORLD.carry_out(search)).gap == pytest.approx(0.02)


def test_a_search_that_may_not_go_on_says_so():
    search = WORLD.search(most=2)
    assert not search.course(WORLD.carry_out(search)).is_complete


def test_it_is_a_function_of_the_results():
    finished = WORLD.carry_out(WORLD.search())
    half = dict(list(finished.items())[: len(finished) // 2])
    assert WORLD.search().propose(half) == WORLD.search().propose(dict(reversed(half.items())))
    assert list(WORLD.search().course(finished).networks) == list(WORLD.search().course(finished).networks)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_order_in_which_workers_finish_changes_nothing(workers):
    found = []
    for seed in range(3):
        search = WORLD.search(workers=workers)
        finished = WORLD.carry_out(search, seed)
        found.append((tuple(search.course(finished).networks), set(tuned(finished))))
    assert found[0] == found[1] == found[2]


def test_blocks_come_first_then_scores_then_looks():
    finished = WORLD.carry_out(WORLD.search())
    kinds = [type(task) for task in finished]
    assert kinds.index(ScoreNetworks) == kinds.count(PretrainBlocks) == 12
    assert kinds.index(LookAt) < kinds.index(FineTune)


def test_rates_in_between_are_trained_where_the_boundary_needs_them():
    world = replace(WORLD, rates=EIGHTHS)
    search = world.search()
    finished = world.carry_out(search)
    course = search.course(finished)
    trained = [(b.symbols[0].module, b.symbols[0].rate) for b in course.blocks]
    assert len(set(trained)) == len(trained)
    assert {rate for _, rate in trained[:12]} == {0.25, 0.5, 0.75}
    assert 12 < len(trained) <= 20, "half of the other 16, at most"
    assert {option for c in course.looked for option in search.options_of([c])} <= set(trained)
    assert {option for c in course.tried for option in search.options_of([c])} - set(trained[:12])
    assert best_of(search, finished) * (1 - 4 * LEAST_GAIN) <= smallest(world, search)


def test_all_rates_are_trained_where_the_bounds_need_them():
    tiny = Objective("max", Metric.ACCURACY, (Constraint(Metric.MODEL_SIZE, "<=", offset=10 + 104.75 / 7),))
    search = replace(WORLD, rates=EIGHTHS).search(tiny)
    assert len(search.course({}).trainings) == 28


def test_a_known_network_has_its_blocks():
    known = ((0.125, 0.0, 0.375, 0.0),)
    search = replace(WORLD, rates=EIGHTHS).search(known=known)
    trained = [t.blocks[0].symbols[0] for t in search.course({}).trainings]
    assert {(0, 0.125), (2, 0.375)} <= {(symbol.module, symbol.rate) for symbol in trained}
    assert len(trained) == 14


def test_no_network_is_expected_to_be_more_accurate_than_the_full_one():
    search = WORLD.search()
    course = search.course(WORLD.carry_out(search))
    assert all(course.predicted(c) <= 0.9 for c in course.looked)


def test_no_network_is_expected_to_be_less_accurate_than_without_training():
    """The weights of the best test are kept, and the first one is before any step."""
    search = WORLD.search()
    course = search.course(WORLD.carry_out(search))
    course.predictor = Predictor((0.0, 0.0, 0.0), 0.0, 0.01)
    assert {c: course.predicted(c) for c in course.looked} == course.looked


def test_networks_to_begin_with_lie_between_a_sure_one_and_the_expected_boundary():
    search = WORLD.search()
    finished: dict[Task, Results] = {}
    while not any(isinstance(task, FineTune) for task in search.propose(finished)):
        for task in search.propose(finished):
            finished[task] = WORLD.result(task, tuple(search.course(finished).networks))
    course = search.course(finished)
    begun = [tuple(course.networks)[task.network] for task in search.propose(finished)]
    assert len(begun) == 4
    assert course.looked[begun[0]] >= search.threshold
    assert all(course.predicted(c) >= search.threshold - 0.01 for c in begun)


@dataclass
class Untrainable(World):
    """Fine-tuning brings nothing: what a look sees is what a network has in the end, in steps of an image."""

    def accuracy(self, configuration: Configuration) -> float:
        return round(super().accuracy(configuration) * IMAGES) / IMAGES

    def result(self, task: Task, met: tuple[Configuration, ...]) -> Results:
        if isinstance(task, LookAt):
            return tuple(Finished("", {"quality": self.accuracy(met[n])}) for n in task.networks)
        return super().result(task, met)


def test_where_training_gains_nothing_the_smallest_that_was_seen_to_be_accurate_enough_is_found():
    world = Untrainable(WORLD.sizes, WORLD.importance)
    search = world.search()
    course = search.course(finished := world.carry_out(search))
    enough = [search.measured(c)[Metric.MODEL_SIZE] for c, seen in course.looked.items() if seen >= search.threshold]
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= min(enough)


@pytest.mark.parametrize(("share", "is_hardly"), [(0.4, True), (0.6, False)])
def test_a_network_says_less_of_others_the_less_it_missed_by(share, is_hardly):
    world = Untrainable(WORLD.sizes, WORLD.importance)
    search = world.search()
    course = search.course(world.carry_out(search))
    missed = next(c for c in course.tried if course.accuracy(c) < search.threshold)
    smaller = (0.75, 0.75, 0.75, 0.75)
    course.looked[smaller] = course.looked[missed] + share * (search.threshold - course.accuracy(missed))
    assert course._is_hardly_better(smaller, missed) is is_hardly


def test_losses_that_do_not_add_up_are_noticed():
    """Accuracies fall with the cube of what blocks lose."""

    class Cubic(World):
        def accuracy(self, configuration: Configuration) -> float:
            return max(
                0.0, 0.9 - 60 * sum((w * r * r) ** 3 for w, r in zip(self.importance, configuration, strict=True))
            )

        def result(self, task: Task, met: tuple[Configuration, ...]) -> Results:
            if not isinstance(task, ScoreNetworks):
                return super().result(task, met)
            lost = (sum(w * r * r for w, r in zip(self.importance, met[n], strict=True)) for n in task.networks)
            return tuple(Finished("", {"quality": 0.9 - x, "divergence": 2 * x, "error": x}) for x in lost)

    world = Cubic((10.0, 21.0, 43.5, 30.25, 12.0, 25.0), (0.1, 0.25, 0.15, 0.3, 0.2, 0.05), noise=0.0)
    search = world.search()
    course = search.course(world.carry_out(search))
    assert course.exponent > 1.0
    assert WORLD.search().course({}).exponent == 1.0


def test_a_network_that_fails_is_not_chosen_and_ends_nothing():
    search = WORLD.search()
    without_failure = best_of(search, WORLD.carry_out(search))
    fails = (c for c in WORLD.space.configurations() if search.measured(c)[Metric.MODEL_SIZE] == without_failure)
    world = replace(WORLD, fails=frozenset(fails))
    assert without_failure != best_of(search, world.carry_out(search)) < math.inf


def test_what_no_network_can_meet_is_not_tried():
    tiny = Objective("max", Metric.ACCURACY, (Constraint(Metric.MODEL_SIZE, "<=", offset=5.0),))
    assert not tuned(WORLD.carry_out(WORLD.search(tiny)))
    no_loss = Objective("min", Metric.MODEL_SIZE, (Constraint(Metric.ACCURACY, ">=", offset=0.0, scale=1.0),))
    search = replace(WORLD, importance=(9.0,) * 4).search(no_loss)
    assert len(tuned(replace(WORLD, importance=(9.0,) * 4).carry_out(search))) <= 10


def test_trainings_that_end_at_the_bound_end_no_search():
    """What they would have come to is not known, so that they say nothing of smaller networks."""
    world = replace(WORLD, ends_early_at=0.85)
    search = world.search()
    finished = world.carry_out(search)
    assert best_of(search, finished) * (1 - 3 * LEAST_GAIN) <= smallest(world, search)
    course = search.course(finished)
    assert any(course.accuracy(c) < search.threshold for c in course.tried), "it comes to the boundary from both sides"


def test_something_is_found_where_little_may_be_tried():
    """The last networks are the surest ones, if none was found before."""
    strict = Objective("min", Metric.MODEL_SIZE, (Constraint(Metric.ACCURACY, ">=", offset=-0.006, scale=1.0),))
    for most in (1, 2, 3, 4):
        search = WORLD.search(strict, most=most)
        assert best_of(search, WORLD.carry_out(search)) < math.inf


def test_a_search_is_complete_only_when_its_predictor_knows_enough():
    search = WORLD.search(looks=1, most=8)
    course = search.course(WORLD.carry_out(search))
    assert len(course.tried) < 4
    assert not course.is_complete
    assert course.prediction_error is None


def test_all_networks_of_a_small_space_are_looked_at():
    search = WORLD.search(looks=4**4, beside=((0.25,) * 4,))
    assert len(search.course(WORLD.carry_out(search)).looked) == 4**4 - 1


def listed(search: Search, networks: tuple[Configuration, ...]) -> Search:
    return replace(search, space=replace(search.space, listed=networks), looks=len(networks), most=len(networks))


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.sampled_from(RATES)] * 4).filter(any), min_size=1, max_size=40, unique=True))
def test_among_listed_networks_the_best_is_found(networks):
    search = listed(WORLD.search(), tuple(networks))
    finished = WORLD.carry_out(search)
    course = search.course(finished)
    assert set(course.looked) == set(networks)
    assert set(course.tried) <= set(networks)
    sizes = [search.measured(c)[Metric.MODEL_SIZE] for c in networks if WORLD.accuracy(c) >= search.threshold]
    assert course.is_complete or course.is_doubtful
    if sizes:
        assert best_of(search, finished) * (1 - LEAST_GAIN) <= min(sizes)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(*[st.sampled_from(RATES)] * 4).filter(any), min_size=13, max_size=60, unique=True),
    st.integers(4, 12),
    st.sampled_from([SMALLEST, MOST_ACCURATE]),
)
def test_no_more_of_a_list_is_looked_at_than_allowed(networks, looks, objective):
    world = replace(WORLD, noise=0.0)
    search = replace(listed(world.search(objective), tuple(networks)), looks=looks)
    finished = world.carry_out(search)
    course = search.course(finished)
    assert set(course.tried) <= set(course.looked) <= set(search.listed)
    assert len(course.looked) <= looks


def test_by_few_looks_at_a_long_list_a_search_finds_what_it_finds_by_all():
    networks = tuple(c for c in WORLD.space.configurations() if any(c))[::3]
    world = replace(WORLD, noise=0.0)
    search = replace(listed(world.search(), networks), looks=40)
    finished = world.carry_out(search)
    course = search.course(finished)
    sizes = [search.measured(c)[Metric.MODEL_SIZE] for c in networks if world.accuracy(c) >= search.threshold]
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= min(sizes)
    assert course.is_complete
    assert len(course.looked) <= 40 < len(networks)
    assert any(isinstance(task, ScoreNetworks) for task in finished)


def test_blocks_are_not_scored_where_a_list_is_looked_at_as_a_whole():
    search = listed(WORLD.search(), ((0.25,) * 4, (0.5,) * 4, (0.75,) * 4))
    finished = WORLD.carry_out(search)
    assert not any(isinstance(task, ScoreNetworks) for task in finished)
    assert not search.course(finished).losses


def test_among_many_listed_networks_few_are_fine_tuned():
    chosen = np.random.default_rng(0).choice(4**4 - 1, 64, replace=False)
    networks = [c for c in WORLD.space.configurations() if any(c)]
    search = listed(WORLD.search(), tuple(networks[i] for i in chosen))
    assert len(tuned(WORLD.carry_out(search))) <= 8


def test_a_list_is_halved_from_the_first_training_on():
    world = World(sizes=(64.0,), importance=(0.1,), noise=0.0, rates=tuple(i / 64 for i in range(64)))
    search = listed(world.search(), tuple((rate,) for rate in world.rates if rate))
    finished = world.carry_out(search)
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= smallest(world, search)
    assert len(tuned(finished)) <= 4, "where networks that span the list are tried first it takes six"


def test_where_no_network_of_a_list_is_expected_to_be_accurate_enough_the_surest_one_shows_it():
    as_good = Objective("min", Metric.MODEL_SIZE, (Constraint(Metric.ACCURACY, ">=", offset=0.0, scale=1.0),))
    networks = tuple((rate,) * 4 for rate in EIGHTHS if rate)
    search = listed(World(WORLD.sizes, WORLD.importance, noise=0.0, rates=EIGHTHS).search(as_good), networks)
    course = search.course(WORLD.carry_out(search))
    assert course.tried == [(0.125,) * 4]
    assert course.is_complete


def missing_by(points: float) -> tuple[Search, World, Configuration]:
    """A list whose surest network misses the bound by so much, where a cheaper one meets it, which seems worse before
    training."""
    world = World(sizes=(10.0, 20.0), importance=(0.1, 0.1), noise=0.0)
    surest, other = (0.25, 0.0), (0.25, 0.25)
    bound = Constraint(Metric.ACCURACY, ">=", offset=world.accuracy(surest) + points, scale=0.0)
    search = listed(world.search(Objective("min", Metric.MODEL_SIZE, (bound,))), (surest, other))
    return search, replace(world, as_good={other: world.accuracy(surest) + 2 * points}), other


def test_a_network_that_misses_the_bound_by_next_to_nothing_does_not_end_a_search_without_any():
    search, world, other = missing_by(0.001)
    course = search.course(world.carry_out(search))
    assert course.tried == [(0.25, 0.0), other]
    assert course.is_complete
    search, world, other = missing_by(0.01)
    course = search.course(world.carry_out(search))
    assert course.tried == [(0.25, 0.0)]
    assert course.is_complete


@pytest.mark.parametrize(("errors", "is_complete"), [(0.1, False), (0.8, False), (1.5, True)])
def test_where_such_a_network_leaves_out_others_a_search_is_not_complete(errors, is_complete):
    world = World(sizes=(64.0,), importance=(0.2,), noise=0.0, rates=(0.0, 0.25, 0.5, 0.75))
    missed = world.accuracy((0.5,))
    by = errors * Share(missed, IMAGES).standard_error
    bound = Constraint(Metric.ACCURACY, ">=", offset=missed + by, scale=0.0)
    search = listed(world.search(Objective("min", Metric.MODEL_SIZE, (bound,))), ((0.25,), (0.5,), (0.75,)))
    course = search.course(world.carry_out(search))
    assert course.tried == [(0.25,), (0.5,)]
    assert course.is_doubtful == (not is_complete)
    assert course.is_complete == is_complete


@pytest.mark.parametrize(("images", "is_complete"), [(200_000, True), (50, False)])
def test_a_search_that_is_complete_by_many_images_is_not_by_few(images, is_complete):
    networks = tuple(c for c in WORLD.space.configurations() if any(c))[::6]
    world = replace(WORLD, noise=0.03)
    search = replace(listed(world.search(), networks), images=images)
    assert search.course(world.carry_out(search)).is_complete == is_complete


@pytest.mark.parametrize(("steps", "is_told"), [(FEW_STEPS, False), (FEW_STEPS + 1, True)])
def test_a_training_that_was_given_up_tells_what_a_network_comes_to_after_a_third_of_the_steps(steps, is_told):
    search = listed(WORLD.search(), ((0.25,) * 4, (0.5,) * 4, (0.75,) * 4))
    finished = WORLD.carry_out(search)
    (first, *_) = tuned(finished)
    finished = {task: results for task, results in finished.items() if not isinstance(task, FineTune)}
    record = {"curve": [[0, 0.3], [steps, 0.86]], "kept": steps, "ended": "given up", "steps": steps}
    course = search.course({**finished, first: (Finished("", record),)})
    (tried,) = (c for c in course.tried if course.accuracy(c) is not None)
    assert (course.predicted(tried) == pytest.approx(0.86)) == is_told


def test_a_list_of_which_a_bound_leaves_few_is_looked_at_as_a_whole():
    networks = tuple(c for c in WORLD.space.configurations() if any(c))
    world = replace(WORLD, noise=0.0)
    search = listed(world.search(MOST_ACCURATE), networks)
    search = replace(search, looks=len(search.listed))
    finished = world.carry_out(search)
    assert len(search.listed) < len(networks)
    assert set(search.course(finished).looked) == set(search.listed)
    assert not any(isinstance(task, ScoreNetworks) for task in finished)


def test_nothing_is_done_for_listed_networks_that_miss_a_bound():
    networks = ((0.25,) * 4, (0.75,) * 4, (0.5,) * 4, (0.75, 0.75, 0.75, 0.5))
    search = listed(WORLD.search(MOST_ACCURATE), networks)
    course = search.course(WORLD.carry_out(search))
    within = {c for c in networks if search.measured(c)[Metric.MODEL_SIZE] <= BOUND}
    assert set(course.looked) == within
    assert set(course.tried) <= within
    assert set(course.options) == set(search.options_of(within))


@pytest.mark.parametrize("looks", [1, 2, 7, 30])
def test_no_more_looks_are_taken_than_allowed(looks):
    beside = ((0.25,) * 4, (0.5,) * 4, (0.75,) * 4, (0.5, 0.25, 0.5, 0.25))
    search = WORLD.search(looks=looks, beside=beside)
    finished = WORLD.carry_out(search)
    looked = [n for task in finished if isinstance(task, LookAt) for n in task.networks]
    assert 0 < len(looked) <= looks
    met = list(search.course(finished).networks)
    assert any(met[n] not in beside for n in looked), "the solver's come first"


def test_known_networks_are_tried_first_and_do_not_count():
    known = ((0.25, 0.0, 0.0, 0.0), (0.5, 0.25, 0.5, 0.0))
    search = WORLD.search(known=known, most=3)
    finished = WORLD.carry_out(search)
    assert tuple(search.course(finished).tried[:2]) == known
    assert len(tuned(finished)) == 5


def test_known_networks_that_break_another_bound_are_no_measure():
    """They are cheap and accurate, but of no use to this objective."""
    flops = Constraint(Metric.FLOPS, "<=", offset=0.5)
    objective = replace(SMALLEST, constraints=(*SMALLEST.constraints, flops))
    known = ((0.25, 0.25, 0.75, 0.0),)
    search = WORLD.search(objective, known=known)
    free = dict.fromkeys(search.costs[Metric.MODEL_SIZE], 0.0)
    dear = {piece: 1.0 for piece in WORLD.space.pieces(2) if piece.rate == 0.75}
    search = replace(search, costs={**search.costs, Metric.FLOPS: free | dear})
    finished = WORLD.carry_out(search)
    course = search.course(finished)
    assert course.accuracy(known[0]) >= search.threshold
    assert [c for c in course.tried if c not in known and c[2] < 0.75 and course.accuracy(c) >= search.threshold]


def test_without_a_bound_on_accuracy_the_smallest_is_found():
    search = WORLD.search(Objective("min", Metric.MODEL_SIZE, ()))
    assert best_of(search, WORLD.carry_out(search)) == pytest.approx(10 + 104.75 / 4)


@settings(max_examples=25)
@given(
    st.lists(st.floats(1, 100), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([SMALLEST, MOST_ACCURATE]),
)
def test_any_world_ends(sizes, seed, objective):
    importance = np.random.default_rng(seed).uniform(0, 0.4, len(sizes))
    world = World(tuple(sizes), tuple(importance.tolist()))
    search = world.search(objective, most=6, looks=30)
    finished = world.carry_out(search, seed)
    course = search.course(finished)
    assert not course.missing
    assert len(course.networks) == len(set(course.networks))
    assert all(search.is_feasible(search.measured(c)) for c in course.tried)


@dataclass
class Signed(World):
    """The same world, in which a quality is the accuracy, or minus the accuracy."""

    sign: int = 1

    def result(self, task: Task, met: tuple[Configuration, ...]) -> Results:
        return tuple(replace(found, outcome=self.turned(found.outcome)) for found in super().result(task, met))

    def turned(self, outcome):
        if "curve" in outcome:
            return {**outcome, "curve": [[step, self.sign * value] for step, value in outcome["curve"]]}
        return {**outcome, "quality": self.sign * outcome["quality"]} if "quality" in outcome else outcome


@pytest.mark.parametrize("is_aim", [True, False])
def test_a_quality_that_is_better_where_it_is_lower_is_searched_alike(is_aim):
    tried = []
    for sign in (1, -1):
        own = Metric("Own", higher_is_better=sign > 0, needs_training=True)
        bound = Constraint(own, ">=" if sign > 0 else "<=", offset=-0.05 * sign, scale=1.0)
        most = Objective("max" if sign > 0 else "min", own, MOST_ACCURATE.constraints)
        world = Signed(WORLD.sizes, WORLD.importance, sign=sign)
        search = world.search(most if is_aim else Objective("min", Metric.MODEL_SIZE, (bound,)), most=8, quality=own)
        search = replace(search, full={**search.full, own: 0.9 * sign})
        tried.append(search.course(world.carry_out(search)).tried)
    assert tried[0] == tried[1]
    assert len(tried[0]) > 3


def test_a_strict_bound_is_not_met_by_a_network_that_reaches_it():
    best = WORLD.accuracy((0.5, 0.25, 0.75, 0.0))
    sizes = []
    for comparison in (">=", ">"):
        bound = Constraint(Metric.ACCURACY, comparison, best)
        search = WORLD.search(Objective("min", Metric.MODEL_SIZE, (bound,)), most=20)
        sizes.append(best_of(search, WORLD.carry_out(search)))
        enough = (c for c in WORLD.space.configurations() if bound.holds({Metric.ACCURACY: WORLD.accuracy(c)}, {}))
        least = min(search.measured(c)[Metric.MODEL_SIZE] for c in enough)
        assert sizes[-1] * (1 - LEAST_GAIN) <= least
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("bound", [0.1, 0.3, 0.5, None])
def test_the_cheapest_networks_of_all_rates_are_reached(bound):
    """At first every second rate is trained, without the largest one."""
    world = replace(WORLD, rates=EIGHTHS)
    bounds = () if bound is None else (Constraint(Metric.ACCURACY, ">=", bound),)
    search = world.search(Objective("min", Metric.MODEL_SIZE, bounds))
    finished = world.carry_out(search)
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= smallest(world, search)
    assert search.course(finished).is_complete


def test_networks_may_cost_nothing():
    world = World(sizes=(10.0, 20.0), importance=(0.01, 0.02), rates=(0.0, 0.5, 1.0))
    search = world.search()
    outside = next(world.space.pieces(2))
    search = replace(search, costs={Metric.MODEL_SIZE: {**search.costs[Metric.MODEL_SIZE], outside: 0.0}})
    finished = world.carry_out(search)
    assert best_of(search, finished) == smallest(world, search) == 0.0


def test_a_block_that_could_not_be_scored_loses_what_the_worst_one_does():
    search = WORLD.search()
    finished = WORLD.carry_out(search)
    course = search.course(finished)
    worst = max(course.losses, key=course.losses.__getitem__)
    unscored = (0.25, 0.0, 0.0, 0.0)
    (scored,) = [task for task in finished if isinstance(task, ScoreNetworks)]
    position = [course.networks[unscored] == n for n in scored.networks].index(True)
    results = list(finished[scored])
    results[position] = Finished("", Failed("no"))
    spoiled = search.course({**finished, scored: tuple(results)})
    assert spoiled.loss(unscored) == spoiled.losses[worst]


def test_a_training_that_was_given_up_says_nothing_of_others():
    world = replace(WORLD, gives_up_below=0.85)
    search = world.search(most=20)
    finished = world.carry_out(search)
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= smallest(world, search)
    course = search.course(finished)
    assert any(world.accuracy(c) < 0.85 for c in course.tried)
    assert course.recovered[False] > 0
    assert course.prediction_error is None or course.prediction_error < 0.02


@dataclass
class WorldOfSkips(World):
    """Modules that are left out lose little at once, and it stays lost; pruned ones lose much, and all comes back."""

    def result(self, task: Task, met: tuple[Configuration, ...]) -> Results:
        if not isinstance(task, LookAt):
            return super().result(task, met)
        lost = ((0.9 - self.accuracy(met[n])) * (1 if SKIP in met[n] else 6) for n in task.networks)
        return tuple(Finished("", {"quality": 0.9 - x}) for x in lost)


def test_networks_that_leave_modules_out_say_little_of_others():
    world = WorldOfSkips((30.0, 30.0, 30.0), (0.06, 0.05, 0.055), noise=0.0, rates=(0.0, 0.25, 0.5, 0.75, SKIP))
    search = world.search()
    finished = world.carry_out(search)
    course = search.course(finished)
    assert best_of(search, finished) * (1 - LEAST_GAIN) <= smallest(world, search)
    assert course.recovered[False] > course.recovered[True]
