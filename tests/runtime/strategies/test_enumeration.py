"""The paper's exploration, driven by invented results: whatever finishes when, the choice is the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.runtime.strategies.enumeration import Enumeration, assignment
from wootz.runtime.tasks.task import FineTune, Finished, PretrainBlocks, Results, Task

DONE: Results = (Finished("", {}),)


def enumeration(good: set[int], count: int, stops: bool = True, rounds: int = 0, blocks: int = 0) -> Enumeration:
    """Networks 0 to count-1, of which `good` meet the constraints; network i needs block i mod `blocks`."""
    networks = tuple(FineTune(i) for i in range(count))
    groups = tuple(PretrainBlocks((TuningBlock((Symbol(i, 0.5),)),)) for i in range(blocks))
    needs: Mapping[Task, tuple[Task, ...]] = {n: (groups[n.network % blocks],) for n in networks} if blocks else {}
    return Enumeration(networks, lambda task, _: task.network in good, stops, groups, needs, rounds)


def carried_out(strategy: Enumeration, workers: int, durations: dict[Task, float]) -> tuple[list[Task], set[Task]]:
    """The tasks finished, in order, and those begun; each takes its duration on one of so many workers."""
    finished: dict[Task, Results] = {}
    ends: dict[Task, float] = {}
    begun: set[Task] = set()
    now = 0.0
    while proposed := strategy.propose(finished):
        assert not set(proposed) & finished.keys()
        ends = {task: end for task, end in ends.items() if task in proposed}
        for task in proposed:
            if task not in ends and len(ends) < workers:
                begun.add(task)
                ends[task] = now + durations[task]
        assert ends, "nothing can be begun, and it is not over"
        next_done = min(ends, key=lambda task: ends[task])
        now = ends.pop(next_done)
        finished[next_done] = DONE
    return list(finished), begun


def test_the_first_that_meets_the_constraints_ends_it():
    finished, begun = carried_out(enumeration({2, 3}, 6), 1, dict.fromkeys(map(FineTune, range(6)), 1.0))
    assert finished == [FineTune(0), FineTune(1), FineTune(2)]
    assert begun == set(finished)


def test_larger_networks_under_way_are_given_up_and_smaller_ones_waited_for():
    durations = {FineTune(0): 5.0, FineTune(1): 1.0, FineTune(2): 9.0, FineTune(3): 1.0}
    strategy = enumeration({1}, 4)
    finished, begun = carried_out(strategy, 3, durations)
    assert finished == [FineTune(1), FineTune(0)]
    assert FineTune(3) not in begun
    assert strategy.decisive(dict.fromkeys(finished, DONE)) == (FineTune(0), FineTune(1))


def test_without_an_early_stop_all_are_tried():
    finished, _ = carried_out(enumeration({0}, 5, stops=False), 2, dict.fromkeys(map(FineTune, range(5)), 1.0))
    assert len(finished) == 5


def test_a_round_begins_when_the_one_before_is_finished_and_is_ended():
    strategy = enumeration({1}, 8, rounds=3)
    assert strategy.propose({}) == tuple(map(FineTune, range(3)))
    assert strategy.propose({FineTune(1): DONE}) == (FineTune(0), FineTune(2))
    assert strategy.propose(dict.fromkeys(map(FineTune, range(3)), DONE)) == ()
    nothing_good = enumeration(set(), 8, rounds=3)
    assert nothing_good.propose({FineTune(0): DONE}) == (FineTune(1), FineTune(2))
    assert nothing_good.propose(dict.fromkeys(map(FineTune, range(3)), DONE)) == tuple(map(FineTune, range(3, 6)))


def test_a_network_is_proposed_when_its_block_is_there():
    strategy = enumeration(set(), 4, blocks=2)
    first, second = strategy.blocks
    assert strategy.propose({}) == (first, second)
    assert strategy.propose({second: DONE}) == (first, FineTune(1), FineTune(3))


@given(
    st.sets(st.integers(0, 9)),
    st.integers(1, 10),
    st.booleans(),
    st.integers(0, 3),
    st.integers(1, 5),
    st.lists(st.floats(0.1, 10), min_size=13, max_size=13),
    st.booleans(),
)
def test_workers_and_durations_change_nothing_that_the_choice_rests_on(
    good, count, stops, blocks, workers, durations, in_rounds
):
    strategy = enumeration(good, count, stops, workers if in_rounds else 0, blocks)
    tasks = itertools.chain(strategy.networks, strategy.blocks)
    finished, _ = carried_out(strategy, workers, dict(zip(tasks, durations, strict=False)))
    results = dict.fromkeys(finished, DONE)
    within = [i for i in sorted(good) if i < count]
    expected = range(within[0] + 1 if stops and within else count)
    assert strategy.decisive(results) == tuple(map(FineTune, expected))
    assert set(strategy.blocks) <= results.keys()


@pytest.mark.parametrize("workers", [1, 3])
def test_networks_and_blocks_share_the_workers_unless_in_rounds(workers):
    strategy = enumeration(set(), 4, blocks=2, rounds=workers)
    assert strategy.propose({strategy.blocks[0]: DONE}) == (strategy.blocks[1],)


def test_the_static_assignment_deals_networks_out():
    assert assignment([7, 3, 5, 1, 0], 2) == ((7, 5, 0), (3, 1))
    assert assignment([7], 3) == ((7,), (), ())
