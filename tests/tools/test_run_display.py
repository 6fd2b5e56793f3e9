"""What a run shows while it goes on, on a terminal and without one."""

import io
import re

import pytest
from msgspec.structs import replace
from rich.console import Console

from wootz.runtime.events import (
    BestFound,
    Note,
    PhaseStarted,
    Planned,
    Progress,
    RunEnded,
    TaskCancelled,
    TaskEnded,
    TaskId,
    TaskRaised,
    TaskStarted,
    WorkerLost,
)
from wootz.tools.run_display import RunDisplay
from wootz.tools.wrapping import wrapped


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def shown(events, clock=None, terminal=False, height=30, width=80):
    """What is on the console, and what the display says after the last event."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=width, height=height, color_system=None)
    clock = clock or Clock()
    with RunDisplay(console, clock) as display:
        for event in events:
            clock.now = event.elapsed
            display(event)
        live = Console(width=width, height=height, color_system=None, file=io.StringIO(), record=True)
        live.print(display._render())
    return written.getvalue(), live.export_text()


def test_lines_where_there_is_no_terminal(whole_run):
    text, _ = shown(whole_run)
    assert text.splitlines() == [
        "  the full network: 90.0 %, 6.0 s",
        "  blocks 2: known before",
        "  3 blocks, group 1 of 2: 6.0 s",
        "  network 1 of 8, 50 % of full: step 50 of 100, loss 0.5, 50.0 %",
        "  network 2 of 8, 51 % of full: step 50 of 100, loss 0.5, 55.0 %",
        "  network 2 of 8, 51 % of full: it was killed; it is tried again",
        "  network 1 of 8, 50 % of full: 60.0 %, misses 80.0 %, 4.0 s",
        "  network 3 of 8, 52 % of full: step 50 of 100, loss 0.5, 60.0 %",
        "  network 4 of 8, 53 % of full: step 50 of 100, loss 0.5, 65.0 %",
        "  network 3 of 8, 52 % of full: 70.0 %, misses 80.0 %, 4.0 s",
        "  network 4 of 8, 53 % of full: failed: it diverged, 4.0 s",
        "  network 5 of 8, 54 % of full: step 50 of 100, loss 0.5, 70.0 %",
        "  network 6 of 8, 55 % of full: step 50 of 100, loss 0.5, 75.0 %",
        "  network 5 of 8, 54 % of full: 80.0 %, meets 80.0 %, 4.0 s",
        "  network 6 of 8, 55 % of full: 85.0 %, meets 80.0 %, 4.0 s",
        "network 4: it diverged",
    ]


def test_once_a_minute_a_line_says_how_far_the_run_is(whole_run):
    slow = [replace(event, elapsed=10 * event.elapsed) for event in whole_run]
    text, _ = shown(slow)
    said = " ".join(text.split())
    assert len(re.findall(r"min so far|s so far", said)) == 3
    assert "trying networks, 2 of at most 8 done; 4 min so far, at most 100 s left; best so far: none yet" in said


def test_a_terminal_shows_how_far_the_run_is_and_a_line_a_task_below(whole_run):
    events = [event for event in whole_run if event.elapsed <= 19.5]
    text, live = shown(events, terminal=True)
    assert "3 blocks, group 1 of 2: 6.0 s" in text
    assert "step 50" not in text
    rows = [" ".join(line.replace("━", " ").replace("╸", " ").split()) for line in live.splitlines() if line.strip()]
    assert rows == [
        "trying networks, 1 of at most 8 done; 19 s so far, at most 13 s left",
        "best so far: none yet",
        "workers lost: 1",
        "0 network 3 of 8, 52 % of full 50 of 100 60.0 % 1.0 s",
        "1 network 4 of 8, 53 % of full 50 of 100 65.0 % 1.0 s",
    ]


def test_the_best_so_far_and_the_time_of_all_attempts(whole_run):
    again = [event for event in whole_run if event.elapsed <= 26 and not isinstance(event, RunEnded)]
    _, live = shown([*whole_run, *again], terminal=True)
    assert "best so far: 50 % of full (12,345 parameters), 80.0 % right" in live
    assert "trying networks, 5 of at most 8 done, 1 failed; 53 s so far, at most 6.0 s left" in live


LONG = "default network 1234 of 5678, a name that nobody would think of in a hundred years: 54 % of full"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("height", [5, 24])
def test_no_line_is_wider_than_80_columns(started, terminal, height):
    """With long names, large numbers, many workers and whatever else makes lines long."""
    task = TaskId("default network", 1233)
    many = [TaskId("network", i) for i in range(40)]
    plan = Planned(model_size=10**9, networks_total=10_000, networks_feasible=9999, blocks=1234, groups=99,
                   teacher=True, baseline=True, stops_at_first=True)  # fmt: skip
    events = [
        replace(started, workers=1000),
        plan,
        PhaseStarted(phase="baseline", elapsed=99_999.0),
        BestFound(index=1, configuration=(0.123,) * 99, model_size=987_654_321, quality=0.9999),
        Note(text="What is found out about a network may take a hundred words and more, and " * 5),
        *(TaskStarted(task=one, title=LONG, worker=100 + i, steps=123_456, display=10) for i, one in enumerate(many)),
        *(Progress(task=one, worker=100, step=120_000, loss=0.0012345678, quality=0.12345) for one in many),
        TaskStarted(task=task, title=LONG, steps=123_456),
        *(TaskRaised(task=one, worker=100, reason="no memory is left " * 9, again=True) for one in many[:2]),
        *(WorkerLost(task=many[-1], worker=100 + i, reason="it was killed", again=True) for i in range(40)),
        TaskEnded(task=task, worker=1, outcome="trained", quality=0.82799, bound=0.828, meets_bound=False,
                  steps_saved=123_400, ended="given up", seconds=99_999.0, elapsed=200_000.0),
        TaskEnded(task=many[5], worker=1, outcome="failed", reason="the training diverged at step 3: lower base_lr",
                  elapsed=200_000.0),
    ]  # fmt: skip
    text, live = shown(events, terminal=terminal, height=height)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    assert max(map(len, [*plain.splitlines(), *live.splitlines()])) <= 80
    assert "120000 of 123456" in live
    assert "12.3 %" in live
    assert ("82.799 %, misses 82.800 %" in " ".join(plain.split())) or terminal


def test_no_more_lines_than_the_terminal_has(whole_run):
    events = [event for event in whole_run if event.elapsed <= 19.5]
    _, live = shown(events, terminal=True, height=5)
    assert "… and 1 more" in live
    assert len(live.splitlines()) <= 5


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Note(text="[bold]as it is[/bold]"), "[bold]as it is[/bold]"),
        (TaskCancelled(task=TaskId("network", 2)), "  network 3: given up, it is not needed any more"),
        (TaskRaised(task=TaskId("default network", 2), worker=1, reason="no memory", again=True),
         "  default network 3: no memory; it is tried again"),
        (TaskEnded(task=TaskId("network", 2), worker=1, outcome="trained", quality=0.5, seconds=90, ended="bound met",
                   steps_saved=60), "  network 3: 50.0 %, done 60 steps early, 90 s"),
    ],
)  # fmt: skip
def test_lines_of_other_events(started, event, line):
    text, _ = shown([started, event])
    assert text == f"{line}\n"


@pytest.mark.parametrize(
    ("saved", "ended", "said"),
    [
        (0, "all steps", ""),
        (0, "bound met", "done at the last step, "),
        (1, "bound met", "done 1 step early, "),
        (60, "given up", "given up 60 steps early, "),
        (100, "bound met", "done without training, "),
    ],
)
def test_how_a_training_ended(started, saved, ended, said):
    task = TaskId("network", 2)
    begun = TaskStarted(task=task, title="network 3", worker=1, steps=100)
    done = TaskEnded(task=task, worker=1, outcome="trained", quality=0.5, seconds=90, ended=ended, steps_saved=saved)
    text, _ = shown([started, begun, done])
    assert text == f"  network 3: 50.0 %, {said}90 s\n"
    exact = replace(done, bound=0.5004, meets_bound=False, steps_saved=0, ended="all steps")
    assert shown([started, begun, exact])[0] == "  network 3: 50.00 %, misses 50.04 %, 90 s\n"


def test_numbers_are_not_torn_from_what_they_are_counted_in():
    text = "imagenet 84.0 ± 3.7 % in 12 min, 1.13 × as fast, 4.2 ms of 0.7 s and 33.7 kB, 3 names"
    units = re.compile(r"[\d.]+ (?:%|ms|s|min|kB|×)(?= |,|$)|[\d.]+ ± [\d.]+ %")
    expected = units.findall(text)
    for width in range(14, 90):
        lines = wrapped(text, width).splitlines()
        assert [found for line in lines for found in units.findall(line)] == expected
        assert " ".join(lines) == text
