"""The main job on a plain chain of layers: a LeNet, whose modules lose inputs with the ones before them."""

import json
from pathlib import Path

import pytest

from wootz.runtime.result import RunResult, block_text

pytest.importorskip("sklearn")
LENET = Path(__file__).parents[1] / "passes" / "transforms" / "networks" / "lenet.prototxt"


@pytest.fixture
def chain_files(job_files, tmp_path):
    (tmp_path / "net.prototxt").write_text(LENET.read_text())
    for name in ("solver.prototxt", "pretrain.prototxt", "objective.txt"):
        (tmp_path / name).write_text((job_files / name).read_text())
    (tmp_path / "teacher.prototxt").write_text(
        'type: "Adam" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 200 batch_size: 32'
    )
    return tmp_path


def run_job(wootz, folder, configurations):
    """Blocks begin with the remaining weights, so that 30 steps lower the error of each."""
    (folder / "subspace.json").write_text(json.dumps(configurations))
    options = (
        "--data",
        "digits",
        "--mean",
        128,
        "--scale",
        0.0078125,
        "--block-start",
        "remaining",
        "--baseline",
        "--threads",
        1,
        "--out",
        "out",
        "--fresh",
    )
    done = wootz("run", ".", *options, cwd=folder)
    assert done.code == 0, done.err
    return done, RunResult.load(folder / "out")


def test_first_layers_equal_the_teachers_and_need_no_training(wootz, chain_files):
    _, result = run_job(wootz, chain_files, [[0.5, 0.5], [0.5, 0.25], [0.25, 0.5], [0.5, 0.0], [0.25, 0.25]])
    assert result.full.quality > 0.8
    assert result.blocks == (), "every second layer is in one network only"
    assert {n.blocks for n in result.block_trained.trained} == {(None, None)}


def test_layers_behind_equal_layers_are_pre_trained(wootz, chain_files):
    vgg = LENET.with_name("vgg.prototxt").read_text()
    vgg = vgg.replace("dim: 3", "dim: 1").replace("num_output: 5", "num_output: 10")
    (chain_files / "net.prototxt").write_text(vgg)
    rows = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.0], [0.0, 0.5, 0.5, 0.5]]
    _, result = run_job(wootz, chain_files, rows)
    assert {block_text(b.symbols, result.modules) for b in result.blocks} == {
        "1(0.5) 2(0.5 after 0.5)",
        "3(0.5 after 0.5)",
        "4(0.5 after 0.5)",
    }
    assert all(b.final_error < b.initial_error for b in result.blocks)


def test_a_single_network_is_noted(wootz, chain_files):
    done, result = run_job(wootz, chain_files, [[0.5, 0.5]])
    assert "single network to try" in done.out
    assert any("nothing is pre-trained" in note for note in result.notes)
