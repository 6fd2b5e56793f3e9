"""Amounts of bytes (in powers of 1000) and of time, as people write and read them."""

from __future__ import annotations

import re

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
TOGETHER = re.compile(r"(?<=\d) (?=[%±×]|m?s\b|min\b|h\b|[kMGT]?B\b)|(?<=[±×]) ")
"""Spaces between a number and what it is counted in."""
DURATIONS = {"s": 1, "min": 60, "h": 3600, "d": 24 * 3600}


def parse_bytes(text: str) -> int:
    """Bytes, also as 500M, 4G or 1.5GB. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise ValueError(f"{text!r} is no amount of bytes: a number, or 500M, 4G")
    return int(float(match[1]) * UNITS[match[2]])


def show_bytes(size: int) -> str:
    """`size` with three digits or so: 512 B, 4.1 kB, 20 GB."""
    for unit, name in (("T", "TB"), ("G", "GB"), ("M", "MB"), ("K", "kB")):
        if size >= 0.9995 * UNITS[unit]:
            return f"{size / UNITS[unit]:.3g} {name}"
    return f"{size} B"


def parse_seconds(text: str) -> float:
    """Seconds, from 90s, 30min, 12h or 7d. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no duration: 30min, 12h or 7d")
    return float(match[1]) * DURATIONS[match[2]]


def show_count(count: int) -> str:
    """`4,096`, or `1.3e+08` of very many."""
    return f"{count:,}" if count < 1_000_000 else f"{count:.2g}"


def counted(count: int, thing: str) -> str:
    """`1 block`, `2 blocks`, `3 processes`."""
    return f"{count} {thing}{'es' if thing.endswith('s') else 's'}" if count != 1 else f"1 {thing}"


def show_milliseconds(milliseconds: float) -> str:
    """With three digits: 0.0251 ms, 12.5 ms, 1,250 ms."""
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds:,.0f} ms"


def show_seconds(seconds: float) -> str:
    """`seconds` in the unit that suits: 4.2 s, 14 min, 3.5 h, 12 d."""
    for unit in ("d", "h", "min"):
        if seconds >= 2 * DURATIONS[unit]:
            number = seconds / DURATIONS[unit]
            return f"{number:.1f} {unit}" if number < 10 and unit == "h" else f"{number:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def untorn(text: str) -> str:
    """`text` that may be broken into lines anywhere but between a number and its unit: `4.8 ± 0.3 %`."""
    return TOGETHER.sub(NO_BREAK_SPACE, text)
