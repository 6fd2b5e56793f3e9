import pytest

from wootz.runtime.store.amounts import parse_bytes, parse_seconds, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("1.5k", 1500), ("20G", 20 * 10**9), ("3 TB".replace(" ", ""), 3 * 10**12)],
)
def test_bytes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "4X", "G", "1e9", "1 0"])
def test_other_texts_are_no_bytes(text):
    with pytest.raises(ValueError, match="no amount of bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_999, "1 MB"),
        (20 * 10**9, "20 GB"),
        (10**15, "1e+03 TB"),
    ],
)
def test_bytes_are_shown(size, text):
    assert show_bytes(size) == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5h", 5400), ("7d", 7 * 86400)])
def test_durations_are_read(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "7w", "-1d", "d"])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.24, "4.2 s"),
        (59, "59 s"),
        (840, "14 min"),
        (3 * 3600, "3.0 h"),
        (20 * 3600, "20 h"),
        (40 * 86400, "40 d"),
    ],
)
def test_durations_are_shown(seconds, text):
    assert show_seconds(seconds) == text
