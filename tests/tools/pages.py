"""Pages of the documentation whose fenced blocks can be executed, in their order, in one folder.

```python NAME       is written into the file NAME, whatever the language
```sh                is run by bash
```text              is what the block of sh before it prints: numbers stand for any, a line `…` for any lines
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NUMBER = r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"


@dataclass(frozen=True)
class Block:
    language: str
    file: str
    text: str
    line: int


@dataclass
class Section:
    """What stands below a heading, of any depth, as far as the next one."""

    heading: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.blocks)


def sections(page: str) -> list[Section]:
    """Those that have fenced blocks, in the page's order."""
    found = [Section("")]
    inside: list[str] | None = None
    for number, line in enumerate(page.splitlines(keepends=True), start=1):
        if line.startswith("```") and inside is None:
            language, _, file = line[3:].strip().partition(" ")
            start, inside = number, []
        elif line.startswith("```"):
            found[-1].blocks.append(Block(language, file, "".join(inside or []), start))
            inside = None
        elif inside is not None:
            inside.append(line)
        elif heading := re.match("#+ (.+)", line):
            found.append(Section(heading[1]))
    assert inside is None, f"the block of line {start} has no end"
    return [section for section in found if section.blocks]


def is_shown(expected: str, printed: str) -> bool:
    """Whether lines are those that were printed, but for numbers, spaces, and lines left out at a line `…`."""
    parts = []
    for line in _lines(expected):
        words = r"[^\n]*".join(_any_numbers(piece) for piece in line.split("…"))
        parts.append(r"(?:[^\n]*\n)*?" if line == "…" else words + r"\n")
    return re.fullmatch("".join(parts), "".join(line + "\n" for line in _lines(printed))) is not None


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if words := re.sub("[─ ]+", " ", line).strip():
            yield words


def _any_numbers(text: str) -> str:
    return NUMBER.join(re.escape(piece) for piece in re.split(NUMBER, text))


def execute(section: Section, folder: Path, changes: dict[str, str], seconds: float) -> str:
    """What the section's commands print, each compared with what the page says; `changes` are words put in others'
    place in commands. Fails with what went wrong and the page's line."""
    everything, printed = "", None
    for block in section.blocks:
        where = f"line {block.line}, {section.heading}"
        if block.file:
            file = folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.language == "sh":
            command = block.text
            for old, new in changes.items():
                command = command.replace(old, new)
            printed = _run(command, folder, where, seconds)
            everything += printed
        else:
            assert block.language == "text", f"{where}: nothing says how {block.language!r} is executed"
            assert printed is not None, f"{where}: no command has printed this"
            assert is_shown(block.text, printed), f"{where}: the page says\n{block.text}\nand this was\n{printed}"
            printed = None
    return everything


def _run(command: str, folder: Path, where: str, seconds: float) -> str:
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    started = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        printed, errors = started.communicate(timeout=seconds)
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    assert started.returncode == 0, f"{where}: exit code {started.returncode}\n{printed}\n{errors}"
    return printed
