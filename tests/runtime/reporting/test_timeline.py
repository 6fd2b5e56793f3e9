"""When each worker did what."""

import pytest

from wootz.runtime.events import RunEnded, TaskCancelled, TaskId
from wootz.runtime.reporting.timeline import Span, Timeline, timeline


def test_a_whole_run(whole_run):
    found = timeline(whole_run)
    assert (found.attempts, found.end, found.workers) == ((0.0,), 26, 2)
    assert found.spans[0] == Span(0, TaskId("teacher"), 2, 8, "trained")
    assert [(s.worker, s.task.index, s.begin, s.end, s.ending) for s in found.spans if s.task.kind == "network"] == [
        (1, 1, 14, 17, "lost"),
        (0, 0, 14, 18, "trained"),
        (0, 2, 18, 22, "trained"),
        (1, 3, 18, 22, "failed"),
        (0, 4, 22, 26, "trained"),
        (1, 5, 22, 26, "trained"),
    ]
    assert [s.task.index for s in found.spans if s.task.kind == "blocks"] == [0], "the other one was known before"
    assert found.busy == pytest.approx((6 + 6 + 3 + 4 + 4 * 4) / (24 * 2))


def test_a_run_that_was_killed_and_continued(whole_run):
    killed = [event for event in whole_run if event.elapsed <= 15.5]
    found = timeline([*killed, *whole_run])
    assert (found.attempts, found.end) == ((0.0, 15.0), 41)
    cut = [s for s in found.spans if s.ending == "unfinished"]
    assert [(s.worker, s.begin, s.end) for s in cut] == [(0, 14, 15), (1, 14, 15)]
    assert [(s.begin, s.end) for s in found.spans if s.task.kind == "teacher"] == [(2, 8), (17, 23)]


def test_a_task_that_is_cancelled_ends_on_its_worker(whole_run):
    events = [e for e in whole_run if e.elapsed <= 15.5]
    cancelled = [TaskCancelled(task=TaskId("network", 1), elapsed=16.0), RunEnded(outcome="found", elapsed=16.0)]
    (span,) = [s for s in timeline([*events, *cancelled]).spans if s.ending == "cancelled"]
    assert (span.worker, span.begin, span.end) == (1, 14, 16)


def test_nothing():
    assert timeline([]) == Timeline()
    assert Timeline().busy == 0
