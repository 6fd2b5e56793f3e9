"""What all experiments of one network are told."""

from __future__ import annotations

import argparse
from pathlib import Path


def experiment_arguments(description: str | None, out: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", action="store_true")
    return parser


def seeds(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
