"""Recorded runs on other numbers of workers, beside sums done by hand."""

import msgspec
import pytest
from msgspec.structs import replace

from wootz.passes.blocks.groups import group_blocks
from wootz.passes.errors import InputError
from wootz.runtime.events import Planned, TaskEnded, TaskId, TaskStarted
from wootz.runtime.result import Environment
from wootz.runtime.simulation import Recording, groups_for, recording, simulate

OVERHEADS = {"blocks": 1.0, "network": 0.5, "default network": 0.25}


@pytest.fixture
def events(started):
    """Of a run by one worker: six blocks in 12 s, then networks 0 to 2, of both kinds, in 1.5 s, 1.75 s and 2 s."""
    plan = Planned(networks_total=4, networks_feasible=4, blocks=6, groups=1, teacher=False, baseline=True,
                   stops_at_first=True)  # fmt: skip
    tasks = [(TaskId("blocks"), 12.0)]
    tasks += [(TaskId(kind, i), 1.5 + i / 4) for kind in ("network", "default network") for i in range(3)]
    found, now = [started, plan], 0.0
    for task, seconds in tasks:
        found.append(TaskStarted(task=task, title="", elapsed=now))
        now += seconds + OVERHEADS[task.kind]
        found.append(TaskEnded(task=task, worker=0, outcome="trained", seconds=seconds, elapsed=now))
    return found


@pytest.fixture
def recorded(run_result, events):
    return recording(run_result(count=4), events)


def schedule(schedules, workers, assignment):
    (found,) = (s for s in schedules if (s.workers, s.assignment) == (workers, assignment))
    return found


def test_what_a_task_takes_beside_its_training_is_measured(recorded):
    assert recorded.overheads == pytest.approx(OVERHEADS)


def test_one_worker_takes_what_was_recorded(recorded):
    found = simulate(recorded, [1])
    for assignment in ("static", "dynamic"):
        of_blocks, default = (schedule(s, 1, assignment) for s in (found.block_trained, found.default))
        assert of_blocks.pretraining_seconds == pytest.approx(13)
        assert of_blocks.seconds == pytest.approx(13 + 1.5 + 1.75 + 2 + 3 * 0.5)
        assert default.seconds == pytest.approx(1.5 + 1.75 + 2 + 3 * 0.25)
        assert (default.networks, default.cancelled, default.idle) == (3, 0, pytest.approx(0))
        assert (default.speedup, default.efficiency) == (1, 1)


def test_a_queue_begins_networks_that_prove_unnecessary_and_gives_them_up(recorded):
    """0 from 0 to 1.75 s, 1 to 2 s, 2, the best, from 1.75 to 4 s, 3 from 2 s on."""
    default = schedule(simulate(recorded, [2]).default, 2, "dynamic")
    assert default.seconds == pytest.approx(4)
    assert (default.networks, default.cancelled, default.idle_seconds) == (4, 1, pytest.approx(0))
    assert default.speedup == pytest.approx(6 / 4)
    assert default.efficiency == pytest.approx(6 / 8)


def test_rounds_wait_for_their_slowest_network_also_for_one_not_tried(recorded):
    """Round 1 ends at 2 s; round 2 with network 3, whose 2.25 s follow from its FLOPs, and which no run has trained."""
    found = simulate(recorded, [2])
    default = schedule(found.default, 2, "static")
    assert default.seconds == pytest.approx(2 + 2.25 + 0.25)
    assert (default.networks, default.cancelled, default.idle_seconds) == (4, 0, pytest.approx(0.25 + 0.25))
    assert found.estimated == 2


def test_a_network_that_was_trained_beside_the_others_has_the_time_that_took(run_result, events):
    beside = TaskEnded(task=TaskId("default network", 3), worker=0, outcome="trained", seconds=7.0, reused=True)
    found = simulate(recording(run_result(count=4), [*events, beside]), [2])
    assert schedule(found.default, 2, "static").seconds == pytest.approx(2 + 7 + 0.25)
    assert found.estimated == 1


def test_more_workers_than_tasks(recorded):
    found = simulate(recorded, [1024])
    assert schedule(found.default, 1024, "dynamic").seconds == pytest.approx(2 + 0.25)
    assert schedule(found.default, 1024, "static").seconds == pytest.approx(2.25 + 0.25)
    assert schedule(found.block_trained, 1024, "dynamic").idle == pytest.approx(1, abs=0.02)


def test_blocks_are_dealt_out_and_each_group_has_its_own_pass_of_the_teacher(recorded):
    assert [len(group) for group in groups_for(recorded, 1)] == [6]
    assert [len(group) for group in groups_for(recorded, 4)] == [2, 2, 1, 1]
    two = schedule(simulate(recorded, [2]).block_trained, 2, "dynamic")
    assert 13 / 2 < two.pretraining_seconds < 13


def test_groups_that_memory_bounds_get_no_larger(run_result, events):
    found = recording(run_result(count=4, groups=((0, 1, 2, 3), (4, 5))), events)
    assert [len(group) for group in groups_for(found, 1)] == [4, 2]
    assert [len(group) for group in groups_for(found, 3)] == [2, 2, 2]


def test_the_paper_s_groups_stay(run_result, events):
    blocks = recording(run_result(count=4), events).blocks()
    paper = group_blocks(blocks)
    assert len(paper) == 3
    groups = tuple(tuple(blocks.index(block) for block in group) for group in paper)
    found = recording(run_result(count=4, groups=groups), events)
    assert groups_for(found, 1) == groups_for(found, 64) == paper


def test_where_all_networks_are_tried_the_best_ends_nothing(run_result, events):
    every = [replace(e, stops_at_first=False) if isinstance(e, Planned) else e for e in events]
    found = simulate(recording(run_result(count=4), every), [1])
    assert schedule(found.default, 1, "dynamic").networks == 4


def test_a_task_of_a_process_that_was_killed_is_not_taken_for_a_long_one(run_result, started, events):
    """The clock of a run that goes on begins anew."""
    start, plan, blocks_started, blocks_ended, *rest = events
    found = recording(
        run_result(count=4), [start, plan, blocks_started, started, replace(blocks_ended, elapsed=1e6), *rest]
    )
    assert found.overheads == pytest.approx({"network": 0.5, "default network": 0.25})


def test_the_result_says_how_many_workers_it_was_recorded_with(run_result, events):
    environment = run_result().environment
    two = Environment(**{**msgspec.structs.asdict(environment), "workers": 2})
    assert simulate(recording(run_result(count=4, environment=two), events), [1]).recorded_workers == 2


def test_folders_without_a_finished_run(tmp_path, run_result, write_events, events):
    with pytest.raises(InputError, match="not the directory of a finished run"):
        Recording.load(write_events(tmp_path, events))
    (tmp_path / "events.jsonl").unlink()
    run_result(count=4).save(tmp_path)
    with pytest.raises(InputError, match=r"no events\.jsonl in this folder"):
        Recording.load(tmp_path)
