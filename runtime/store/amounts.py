"""Amounts of bytes as people write and read them, in powers of 1000."""

from __future__ import annotations

import re

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


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
