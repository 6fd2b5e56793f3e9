"""What a user would write as constants."""

from __future__ import annotations

import argparse
from pathlib import Path


def settings(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--drop", type=float, required=True)
    parser.add_argument("--trainings", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--mean", type=float, nargs="+", required=True)
    parser.add_argument("--scale", type=float, nargs="+", required=True)
    parser.add_argument("--channel-order", choices=("RGB", "BGR"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser
