"""Commands of the documents: those that take seconds are executed, of the others options and arguments are read, as of
the benchmarks that they name.

`docs/tutorial.md` is executed as a whole (test_tutorial.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import click
import numpy as np
import pytest

from wootz.passes.errors import InputError
from wootz.tools.cli import wootz
from wootz.tools.opt import opt

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NETWORKS = ("net", "network", "model", "full", "pruned")
EXECUTED = r"wootz-opt |wootz (subspace|blocks|cache) "
OTHER_NETWORK = r"res2a@|resnet20"
"""Names a network that isn't at hand, or its modules."""


def commands(document: Path) -> list[str]:
    """Its indented lines that begin with `wootz` or `wootz-opt`, behind `mpiexec` too, without what stands behind a
    comment or a pipe."""
    text = re.sub(r"(?ms)^```.*?^```$", "", document.read_text()).replace("\\\n", " ")
    lines = re.findall(r"(?m)^    +(?:mpiexec .*? )?(wootz(?:-opt)? .*)$", text)
    return [re.sub(r"\s+", " ", re.split(r"\s{2,}#|\s\|\s", line)[0]).strip() for line in lines]


def quick_commands(document: Path) -> list[str]:
    """Those that are executed."""
    return [c for c in commands(document) if re.match(EXECUTED, c) and not re.search(f"{OTHER_NETWORK}|…", c)]


COMMANDS = [(document.stem, command) for document in DOCUMENTS for command in dict.fromkeys(commands(document))]


def understand(command: str) -> None:
    """Raises a click.UsageError for an option, an argument or a choice that there isn't."""
    program, *words = shlex.split(command.replace("run …", "run net.onnx").replace("…", ""))
    found: click.Command = opt if program == "wootz-opt" else wootz
    context = None
    while isinstance(found, click.Group):
        context = click.Context(found, parent=context)
        name = words.pop(0)
        inner = found.get_command(context, name)
        assert inner is not None, f"there is no {name}"
        found = inner
    found.make_context(program, words, parent=context)


@pytest.mark.parametrize(("document", "command"), COMMANDS)
def test_options_and_arguments_are_understood(document, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        understand(command)
    except click.exceptions.Exit:  # what an option such as --list-passes does at once
        assert capsys.readouterr().out
    except click.BadParameter as error:
        if "does not exist" not in error.message:
            raise


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the files that the documents' commands read."""
    for name in NETWORKS:
        shutil.copy(REPOSITORY / "examples" / "shapes_onnx" / "shapes.onnx", tmp_path / f"{name}.onnx")
    (tmp_path / "MODEL").symlink_to("net.onnx")
    np.savez(tmp_path / "sample.npz", image=np.zeros((4, 3, 32, 32), np.float32))
    return tmp_path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def environment(store) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    places = {"WOOTZ_STORE": str(store), "WOOTZ_CACHE": str(store / "photographs")}
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **places}


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if quick_commands(d)], ids=lambda document: document.stem)
def test_what_takes_seconds_does_what_it_says(document, folder, environment):
    for command in quick_commands(document):
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        written = re.search(r" -o (\S+)", command)
        assert not written or (folder / written[1]).stat().st_size, command


LONG = r"wootz (run|search|latency|store) "
NOT_AT_HAND = r"…|cuda|dask|task\.py|\.npz|net\.prototxt|teacher\.onnx|resnet20|examples/|3f9a|--effort|run --baseline"
"""In commands that need other hardware, networks or data, or are executed elsewhere."""
BEFORE = {"result": "wootz run net.onnx --data photographs/ --out runs/mine"}
"""What the commands of a document go on from."""
SHORT = 'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 3 batch_size: 16'
PRUNABLE = 6


def long_commands(document: Path) -> list[str]:
    """Those that train or measure, which are executed with few steps."""
    found = [c for c in commands(document) if re.match(LONG, c) and not re.search(NOT_AT_HAND, c)]
    return [BEFORE[document.stem], *found] if document.stem in BEFORE else found


def made_short(command: str) -> str:
    """With few steps, few networks and a bound that these meet, where it says nothing of them."""
    begins = re.match(r"wootz (run|search) \w+\.onnx", command)
    if not begins:
        return command
    few = {
        "--solver": "solver.prototxt --pretrain-solver pretrain.prototxt",
        "--objective": "'min ModelSize constraint Accuracy >= full - 0.5'",
        **({"--rates": "0.5 --networks 1 --looks 4"} if begins[1] == "search" else {"--subspace": "subspace.json"}),
    }
    added = " ".join(f"{option} {value}" for option, value in few.items() if option not in command)
    return f"{command.replace('full - 0.01', 'full - 0.5')} {added}"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """Photographs that the network in `folder` tells apart: few of them."""
    photographs = tmp_path_factory.mktemp("photographs")
    subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "shapes_onnx" / "write_images.py", photographs], check=True
    )
    for image in photographs.rglob("*.jpg"):
        if int(image.stem) >= 100:
            image.unlink()
    return photographs


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if long_commands(d)], ids=lambda document: document.stem)
def test_what_trains_does_what_it_says(document, folder, photographs, environment):
    for name in ("photographs", "DIR", "WHERE"):
        (folder / name).symlink_to(photographs)
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(folder / "net.onnx", folder / name)
    for name in ("solver.prototxt", "pretrain.prototxt"):
        (folder / name).write_text(SHORT)
    (folder / "subspace.json").write_text(json.dumps([[0, *[0.5] * PRUNABLE], [0, *[0.25] * PRUNABLE]]))
    for command in map(made_short, long_commands(document)):
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


# Benchmarks, which take minutes to hours: their arguments are read, and the program ends there

NO_ARGUMENT = re.compile(r"#|\||…|beside|\[")
"""Of what begins one, a line is text."""


def benchmarks(document: Path) -> list[str]:
    """What stands behind `python` where the document names a benchmark, in a line of its own or in a sentence."""
    text = document.read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in re.findall(r"python (benchmarks/[^`\n]+)", text)]


NAMED = [(document.stem, command) for document in DOCUMENTS for command in dict.fromkeys(benchmarks(document))]


class Understood(Exception):
    """The arguments were read."""


def search_understands(words: list[str]) -> None:
    """Fails where `wootz search`, to which some benchmarks hand what they don't know, has no such option."""
    command = wootz.get_command(click.Context(wootz), "search")
    assert command is not None
    known = {name: option for option in command.params for name in option.opts + option.secondary_opts}
    for word in words:
        assert not word.startswith("-") or word in known, f"wootz search has no {word}"


@pytest.mark.parametrize(("document", "command"), NAMED)
def test_options_and_arguments_of_a_benchmark_are_understood(document, command, tmp_path, monkeypatch):
    script, *words = takewhile(lambda word: not NO_ARGUMENT.match(word), shlex.split(command))
    read = argparse.ArgumentParser.parse_known_args

    def parse(parser, args=None, namespace=None):
        search_understands(read(parser, args, namespace)[1])
        raise Understood

    def parse_all(parser, args=None, namespace=None):
        assert not read(parser, args, namespace)[1]
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_all)
    monkeypatch.setattr(sys, "argv", [str(REPOSITORY / script), *words])
    monkeypatch.setattr(sys, "path", [str((REPOSITORY / script).parent), *sys.path])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((Understood, InputError)):  # a folder that is read at once isn't here
        runpy.run_path(sys.argv[0], run_name="__main__")
