"""docs/tutorial.md as somebody works through it: all that stands in its fenced blocks is executed, in order.

Sections whose runtime isn't installed are skipped by name. `pip install` is the only command that isn't tried, and the
port of the page's server the only word that is another one here.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import pages  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
TUTORIAL = (REPOSITORY / "docs" / "tutorial.md").read_text()
EXPORT = (REPOSITORY / "examples" / "digits_onnx" / "export.py").read_text()
MODULES = {"import cv2": "cv2", "import openvino": "openvino"}
PROGRAMS = {r"\bnpm ": "npm", r"\bnode ": "node", r"\bchromium ": "chromium", r"\bcurl ": "curl"}
COMPARED = {"OpenCV", "OpenVINO", "Node", "A browser", "When a runtime refuses"}
LARGEST_DIFFERENCE = 1e-4
"""Of scores, between runtimes that are given the same image: scores are of the order of 10."""


def test_what_is_not_executed_installs_or_stands_in_the_program_that_exported_the_network():
    outside = re.sub(r"(?ms)^```.*?^```$", "", TUTORIAL)
    indented = [dedent(block).strip() for block in re.findall(r"(?m)(?:^    .*\n)+", outside)]
    program = re.sub("(?m)^    ", "", EXPORT)
    assert len(indented) == 2
    assert all(block in program or re.fullmatch(r"pip install [^\n]*", block) for block in indented)


@pytest.mark.parametrize(
    ("expected", "is_so"),
    [
        ("a 1.5 b", True),
        ("a 33 b\n…", True),
        ("a 1,000 c", False),
        ("a b", False),
        ("a … b\nsecond", True),
        ("…\nsecond", True),
        ("second", False),
        ("second\na 2.5 b", False),
    ],
)
def test_what_a_page_shows_is_compared_but_for_numbers(expected, is_so):
    assert (
        pages.is_shown(expected, "a   2.5 b\nsecond\n" if "second" in expected or "…" in expected else "a 2 b") is is_so
    )


def reason_to_skip(section: pages.Section, folder: Path) -> str | None:
    """Which of what the section needs isn't there."""
    for words, module in MODULES.items():
        if words in section.text:
            pytest.importorskip(module)
    for words, program in PROGRAMS.items():
        if re.search(words, section.text) and not shutil.which(program):
            return f"no program {program}"
    if installed := re.search(r"npm install .*?(\S+@\S+)", section.text):
        asked = subprocess.run(["npm", "view", installed[1], "version"], capture_output=True, text=True, check=False)
        return None if asked.returncode == 0 and asked.stdout.strip() else f"npm can't reach {installed[1]}"
    if "onnxruntime-web" in section.text and not (folder / "node_modules" / "onnxruntime-web").exists():
        return "onnxruntime-web isn't installed"
    return None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path, subtests):
    pytest.importorskip("sklearn")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    found = pages.sections(TUTORIAL)
    assert {section.heading for section in found} >= COMPARED
    for section in found:
        with subtests.test(section.heading):
            if reason := reason_to_skip(section, tmp_path):
                pytest.skip(reason)
            printed = pages.execute(section, tmp_path, {"8000": str(free_port())}, seconds=1500)
            differences = [float(number) for number in re.findall(rf"largest difference ({pages.NUMBER})", printed)]
            assert len(differences) == printed.count("largest difference")
            assert all(difference < LARGEST_DIFFERENCE for difference in differences), printed
            assert differences or section.heading not in COMPARED
    shutil.rmtree(tmp_path / "node_modules", ignore_errors=True)
