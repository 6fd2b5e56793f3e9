"""`wootz latency`: one network and its table, several side by side. No number is looked at."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import save
from wootz.runtime.latency_table.table import read_table
from wootz.tools.cli import wootz
from wootz.tools.commands import latency as module

NETWORK = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"
SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 2 } }
"""


def run(*arguments):
    options = [] if "--export" in arguments or "--table" in arguments else ["--seconds", "1e-3", "--threads", "1"]
    return CliRunner(env={"COLUMNS": "150"}).invoke(wootz, ["latency", *map(str, arguments), *options])


def refusal(*arguments):
    done = run(*arguments)
    assert isinstance(done.exception, WootzError), done.output
    return str(done.exception)


def test_a_network_and_its_modules(tmp_path):
    done = run(NETWORK, "--rates", "0.25,0.5", "--batch", "2", "-o", tmp_path / "table.json")
    assert done.exit_code == 0, done.output
    table = read_table(tmp_path / "table.json")
    assert table.measured_on.batch == 2
    first, conditions, *rest = done.output.splitlines()
    assert first.startswith("net.prototxt: ")
    assert "1 thread, batch of 2, 1x8x8" in conditions
    for name in (*(m.module for m in table.modules), module.OUTSIDE):
        assert any(line.split("│")[1:2] == [f" {name} "] or f" {name} " in line for line in rest), name
    assert any(line.startswith("of networks that weren't fitted to") for line in rest)
    again = run(NETWORK, "--rates", "0.25,0.5", "--table", tmp_path / "table.json")
    assert again.stdout == done.stdout
    assert "lacks module" in refusal(NETWORK, "--rates", "0.25,0.7", "--table", tmp_path / "table.json")


def test_modules_that_may_be_left_out(tmp_path):
    done = run(NETWORK, "--rates", "0.5", "--skip", "-o", tmp_path / "table.json")
    assert done.exit_code == 0, done.output
    options = read_table(tmp_path / "table.json").space.options
    assert {rates[-1] for rates in options} == {0.5, 1.0}
    assert " skip " in done.output


def test_what_is_measured_elsewhere_is_written(tmp_path):
    done = run(NETWORK, "--export", tmp_path / "new")
    assert done.exit_code == 0, done.output
    count = len(list((tmp_path / "new").glob("*.onnx")))
    assert done.output == f"{tmp_path / 'new'}: {count} networks; there: python measure.py -o table.json\n"
    assert isinstance(run(NETWORK, "--export", tmp_path / "new").exception, InputError)


def test_a_network_without_modules_has_no_table(tmp_path):
    (tmp_path / "small.prototxt").write_text(SMALL)
    assert "has no modules" in refusal(tmp_path / "small.prototxt")


def test_several_networks_side_by_side(tmp_path):
    """Each as its file is: one with a fixed batch, one whose sizes are open."""
    (tmp_path / "small.prototxt").write_text(SMALL)
    model = import_caffe(NETWORK).model
    save(model, tmp_path / "fixed.onnx")
    model.graph.inputs[0].shape = ["N", 1, "H", "W"]
    save(model, tmp_path / "open.onnx")
    files = [tmp_path / name for name in ("fixed.onnx", "open.onnx", "small.prototxt")]
    done = run(*files, "--size", "8x8")
    assert done.exit_code == 0, done.output
    rows = [line.split("│")[1:-1] for line in done.output.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == [file.name for file in files]
    assert rows[0][2].strip() == "1.000 (1.000 to 1.000)"
    assert refusal(*files) == f"{files[1]} leaves the size of images open: give --size"
    assert "go with a single MODEL" in refusal(*files, "-o", tmp_path / "table.json")
    assert "no such file" in refusal(files[0], tmp_path / "missing.onnx")


@pytest.mark.parametrize("options", [("-o", "a", "--table", "b"), ("--export", "a", "--table", "b")])
def test_options_that_exclude_each_other(options):
    assert refusal(NETWORK, *options) == "--out, --export and --table exclude each other"
