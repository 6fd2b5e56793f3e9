"""Times on the command line, and what is cut to fit into them."""

from dataclasses import dataclass, field
from unittest.mock import MagicMock

import click
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Subspace
from wootz.runtime.defaults import Circumstances
from wootz.runtime.expected_time import ExpectedTime
from wootz.runtime.run_directory import SUBSPACE_FILE
from wootz.tools.budget import within_budget
from wootz.tools.duration import Duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "5 minutes", "0s", "3m2h"])
def test_what_is_no_duration(text):
    with pytest.raises(click.BadParameter, match="is no time"):
        Duration().convert(text, None, None)


def test_a_duration_that_was_recorded_stays_as_it_is():
    assert Duration().convert(90.0, None, None) == 90.0


SOLVER = Solver()


@dataclass(frozen=True)
class Chosen:
    """What of a job and its companions a budget is about."""

    subspace: Subspace
    lesson: Lesson = LABELLED
    solver: Solver = SOLVER
    teacher_solver: Solver = SOLVER
    pretrain_solver: Solver = SOLVER
    search: None = None
    objective: str = ""
    chosen: dict[str, bytes] = field(default_factory=lambda: {SUBSPACE_FILE: b""})
    notes: tuple[str, ...] = ()
    identifier: str = ""
    rounding: int = 1


def rates_within(budget: float, monkeypatch) -> list[float]:
    """Of the networks that fit, where four are chosen at each scale, each takes a second, and nothing else does."""
    subspace = Subspace(("m",), tuple((rate,) for rate in (0.7, 0.5, 0.3, 0.6)))
    monkeypatch.setattr("wootz.tools.budget.speed", lambda *_: None)
    monkeypatch.setattr("wootz.tools.budget.survey_subspace", lambda _, subspace, *__: subspace)
    monkeypatch.setattr("wootz.tools.budget.trainings_of", lambda *_: None)
    monkeypatch.setattr(
        "wootz.tools.budget.expected_time", lambda subspace, *_: ExpectedTime(0, 0, 0, len(subspace.configurations))
    )
    circumstances = Circumstances(64, 64, 8, True, "none", "quick", "CPU", 0)
    cut = within_budget(Chosen(subspace), budget, lambda _: Chosen(subspace), circumstances, MagicMock())
    return [rate for (rate,) in cut.subspace.configurations]


@pytest.mark.parametrize(
    ("budget", "rates"),
    [(9, [0.7, 0.5, 0.3, 0.6]), (4, [0.3, 0.5, 0.6]), (3, [0.3, 0.5]), (1.3, [0.3])],
)
def test_as_many_of_the_networks_that_lose_least_as_fit(budget, rates, monkeypatch):
    assert rates_within(budget, monkeypatch) == rates


def test_a_budget_too_short_for_one_network(monkeypatch):
    with pytest.raises(WootzError, match=r"--budget: 1.0 s are too short for one network: about 1.2 s are needed"):
        rates_within(1, monkeypatch)
