"""`make demo`, with less effort: what it delivers is run on the image files, by what best.json says alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from wootz.runtime.result import RunResult

pytest.importorskip("sklearn")

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """A folder in which the commands of `make demo` have been run, behind those that install."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(REPOSITORY / "examples" / "digits_onnx", folder / "examples" / "digits_onnx")
    make = ["make", "--dry-run", "--no-print-directory", "demo", f"BIN={Path(sys.executable).parent}"]
    said = subprocess.run(make, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    *_, images, run = said.stdout.splitlines()
    for command in (images, f"{run} --effort quick --threads 1 --store {folder / 'store'}"):
        done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


def test_the_given_network_was_not_trained_on_the_validation_images(demo):
    result = RunResult.load(demo / "runs" / "digits")
    assert (result.images.train, result.images.validation, result.images.test) == (899, 449, 449)
    assert result.full.origin == "given"
    assert result.full.quality > 0.97
    assert not any("seen" in note or "validation images" in note for note in result.notes)


def test_the_demo_finds_a_network_that_its_files_can_be_run_by(demo):
    folder = demo / "runs" / "digits"
    described = json.loads((folder / "best.json").read_text())
    fed = described["input"]
    files = sorted((demo / "build" / "digits" / "test").glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file), np.float32) for file in files])[:, None]
    session = onnxruntime.InferenceSession(folder / described["best"]["file"], providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {fed["name"]: (pixels - np.float32(fed["mean"])) * np.float32(fed["scale"])})
    right = [described["classes"][n] == file.parent.name for n, file in zip(scores.argmax(1), files, strict=True)]
    assert np.mean(right) == pytest.approx(described["best"]["test_quality"])
    assert np.mean(right) > 0.95
    assert described["best"]["parameters"] < 0.7 * described["full"]["parameters"]


def test_the_python_lines_that_are_printed_last_run_it(demo):
    *_, first, second, third = (demo / "printed.txt").read_text().splitlines()
    lines = (first, second, third, "print(scores.shape)")
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=demo, capture_output=True, text=True)
    assert done.stdout == "(1, 10)\n", done.stderr
