"""What a run shows while it goes on, on a terminal and without one."""

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from wootz.runtime.events import Note, TaskCancelled, TaskEnded, TaskId, TaskRaised, TaskStarted
from wootz.tools.run_display import RunDisplay


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def shown(events, clock=None, terminal=False, height=30):
    """What is on the console, and what the display says after the last event."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=150, height=height, color_system=None)
    clock = clock or Clock()
    with RunDisplay(console, clock) as display:
        for event in events:
            clock.now = event.elapsed
            display(event)
        live = Console(width=150, color_system=None, file=io.StringIO(), record=True)
        live.print(display._render())
    return written.getvalue(), live.export_text()


def test_lines_where_there_is_no_terminal(whole_run):
    text, _ = shown(whole_run)
    assert text.splitlines() == [
        "  the full network: accuracy 0.9000, 6.0 s",
        "  blocks 2: known before",
        "  3 blocks, 1(0.3) to 2(0.5): 6.0 s",
        "  network 1 [0.0, 0.5]: step 50 of 100, loss 0.5000, accuracy 0.5000",
        "  network 2 [0.1, 0.5]: step 50 of 100, loss 0.5000, accuracy 0.5500",
        "  network 2 [0.1, 0.5]: it was killed; it is tried again",
        "  network 1 [0.0, 0.5]: accuracy 0.6000, 4.0 s",
        "  network 3 [0.2, 0.5]: step 50 of 100, loss 0.5000, accuracy 0.6000",
        "  network 4 [0.3, 0.5]: step 50 of 100, loss 0.5000, accuracy 0.6500",
        "  network 3 [0.2, 0.5]: accuracy 0.7000, 4.0 s",
        "  network 4 [0.3, 0.5]: failed: it diverged, 4.0 s",
        "  network 5 [0.4, 0.5]: step 50 of 100, loss 0.5000, accuracy 0.7000",
        "  network 6 [0.5, 0.5]: step 50 of 100, loss 0.5000, accuracy 0.7500",
        "  network 5 [0.4, 0.5]: accuracy 0.8000, 4.0 s",
        "  network 6 [0.5, 0.5]: accuracy 0.8500, 4.0 s",
        "network 4: it diverged",
    ]


def test_once_a_minute_a_line_says_how_far_the_run_is(whole_run):
    slow = [replace(event, elapsed=10 * event.elapsed) for event in whole_run]
    text, _ = shown(slow)
    summaries = [line for line in text.splitlines() if "; networks " in line]
    assert len(summaries) == 3
    assert summaries[-1] == (
        "trying networks; blocks 5 of 5, 2 known before; networks 2 of at most 8; best so far none yet; "
        "saved 9.0 s, by results that were known before; workers lost 1; at most 100 s left"
    )


def test_a_terminal_shows_a_line_a_worker_below(whole_run):
    events = [event for event in whole_run if event.elapsed <= 19.5]
    text, live = shown(events, terminal=True)
    assert "3 blocks, 1(0.3) to 2(0.5): 6.0 s" in text
    first, *rows = [line.strip() for line in live.splitlines() if line.strip()]
    assert first.startswith("trying networks; blocks 5 of 5")
    assert [row.split()[0] for row in rows if "network" in row][-2:] == ["0", "1"]
    assert "50 of 100  loss 0.5000, accuracy 0.6000" in live


def test_no_more_lines_than_the_terminal_has(whole_run):
    events = [event for event in whole_run if event.elapsed <= 19.5]
    _, live = shown(events, terminal=True, height=5)
    assert "… and 1 more" in live


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Note(text="[bold]as it is[/bold]"), "[bold]as it is[/bold]"),
        (TaskCancelled(task=TaskId("network", 2)), "  network 3: given up, it is not needed any more"),
        (TaskRaised(task=TaskId("default network", 2), worker=1, reason="no memory", again=True),
         "  default network 3: no memory; it is tried again"),
        (TaskEnded(task=TaskId("network", 2), worker=1, outcome="trained", accuracy=0.5, seconds=90, ended="bound met",
                   steps_saved=60), "  network 3: accuracy 0.5000, bound met 60 steps before the end, 90 s"),
    ],
)  # fmt: skip
def test_lines_of_other_events(started, event, line):
    text, _ = shown([started, event])
    assert text == f"{line}\n"


@pytest.mark.parametrize(
    ("saved", "ended", "said"),
    [
        (0, "all steps", ""),
        (0, "bound met", "bound met at the last step, "),
        (1, "bound met", "bound met 1 step before the end, "),
        (60, "given up", "given up 60 steps before the end, "),
        (100, "bound met", "bound met without training, "),
    ],
)
def test_how_a_training_ended(started, saved, ended, said):
    task = TaskId("network", 2)
    begun = TaskStarted(task=task, title="network 3", worker=1, steps=100)
    done = TaskEnded(task=task, worker=1, outcome="trained", accuracy=0.5, seconds=90, ended=ended, steps_saved=saved)
    text, _ = shown([started, begun, done])
    assert text == f"  network 3: accuracy 0.5000, {said}90 s\n"
