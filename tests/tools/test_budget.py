"""Times on the command line, and what is cut to fit into them."""

import click
import pytest

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
