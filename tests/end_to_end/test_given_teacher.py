"""Runs in which the full network is asked once for each image, and such in which it runs in each step."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from tiny import arguments

from wootz.runtime.result import RunResult


@pytest.fixture
def job(tiny_job, tmp_path):
    return shutil.copytree(tiny_job, tmp_path / "job")


@pytest.fixture
def run(wootz, job, tmp_path):
    def run(out: str, *options: object):
        given = arguments(job, tmp_path / out, tmp_path / "store")
        done = wootz(*given, "--distill", 0.5, "--print-ir-after", "distill", *options)
        assert done.code == 0, done.err
        return done

    return run


def graphs(done) -> list[str]:
    """The training graphs of networks that learn from the full one, as they are printed."""
    return [text for text in done.err.split("ir_version")[1:] if "distillation = Identity" in text]


def networks(run: Path) -> list[object]:
    """What a run's result says of those that it trained, whichever run that was."""
    found = RunResult.load(run)
    explored = (*found.networks, *found.baseline.networks)
    return [msgspec.structs.replace(network, reused=False, seconds=0.0) for network in explored]


def runs_teacher(graph: str) -> bool:
    return '["teacher/conv"]' in graph


def test_a_run_whose_images_are_taken_whole_is_given_what_the_full_network_says(run, tmp_path):
    """80 images, and trainings that see 128."""
    first = run("first")
    assert len(graphs(first)) >= 3
    assert not any(map(runs_teacher, graphs(first)))
    stored = sorted(tmp_path.joinpath("store").rglob("*"))
    again = run("again")
    assert not again.trained
    assert not graphs(again), "nothing is trained, so that no graph is built"
    assert sorted(tmp_path.joinpath("store").rglob("*")) == stored
    once, twice = (networks(tmp_path / out) for out in ("first", "again"))
    assert len(once) == 6
    assert once == twice


def test_where_all_images_would_be_asked_for_twice_it_runs_in_each_step(run):
    """Of 80 images and as many mirrored ones a training doesn't see all."""
    done = run("mirrored", "--mirror")
    assert len(graphs(done)) >= 3
    assert all(map(runs_teacher, graphs(done)))


def test_where_crops_are_drawn_it_runs_in_each_step(run, job):
    text = (job / "net.prototxt").read_text()
    cropped = text.replace("input_param", "transform_param { crop_size: 6 } input_param").replace("dim: 8", "dim: 6")
    (job / "net.prototxt").write_text(cropped)
    done = run("cropped")
    assert len(graphs(done)) >= 3
    assert all(map(runs_teacher, graphs(done)))
