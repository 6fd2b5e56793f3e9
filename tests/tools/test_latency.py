"""`wootz latency`: one network and its table, several side by side. No number is looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx.parser import parse_model

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.files import save
from wootz.runtime.latency_table.table import read_table
from wootz.tools.cli import wootz
from wootz.tools.commands import latency as module
from wootz.tools.side_by_side import _spatial_axes

NETWORK = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"
SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
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
    assert [row[1].strip() for row in rows] == ["1x1x8x8"] * 3
    assert rows[0][3].strip() == "1.000 (1.000 to 1.000)"
    assert "warning" not in done.output
    assert refusal(*files) == f"{files[1]}: leaves the size of images open: give --size"
    assert "go with a single MODEL" in refusal(*files, "-o", tmp_path / "table.json")
    assert "no such file" in refusal(files[0], tmp_path / "missing.onnx")


@pytest.mark.parametrize("options", [("-o", "a", "--table", "b"), ("--export", "a", "--table", "b")])
def test_options_that_exclude_each_other(options):
    assert refusal(NETWORK, *options) == "--out, --export and --table exclude each other"


@pytest.fixture
def table(tmp_path):
    """Of one thread, rates 0.25 and 0.5."""
    file = tmp_path / "table.json"
    assert run(NETWORK, "--rates", "0.25,0.5", "-o", file).exit_code == 0
    return file


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--batch", "2"), "--batch: the latency table is of 1, not 2"),
        (("--threads", "2"), "--threads: the latency table is of 1, not 2"),
        (("--threads", "0"), "--threads: the latency table is of 1, not 0"),
        (("--device", "cuda"), "--device: the latency table is of CPUExecutionProvider, not CUDAExecutionProvider"),
        (("--seconds", "3"), "--seconds: goes with measuring: --table measures nothing"),
        (("--seconds", "0"), "--seconds: goes with measuring: --table measures nothing"),
        (("--rates", "0.25"), "the latency table has --rates 0.25,0.5: give these, or no rates"),
        (("--rates", "0.25,0.7"), "at rate 0.7 and 3 more pieces: it has --rates 0.25,0.5"),
        (("--skip",), "at rate skip and 1 more piece: it has --rates 0.25,0.5"),
        (("--size", "9x9"), "it takes images of 8x8, not 9x9"),
    ],
)
def test_what_contradicts_a_table_is_refused(table, options, reason):
    assert reason in refusal(NETWORK, "--table", table, *options)


def test_a_table_is_shown_without_saying_how_it_was_measured(table):
    done = run(NETWORK, "--table", table)
    assert done.exit_code == 0, done.output
    assert run(NETWORK, "--table", table, "--batch", "1", "--threads", "1", "--device", "cpu").stdout == done.stdout


def test_a_table_with_skips_is_shown_without_saying_so(tmp_path):
    assert run(NETWORK, "--rates", "0.5", "--skip", "-o", tmp_path / "table.json").exit_code == 0
    assert run(NETWORK, "--table", tmp_path / "table.json").exit_code == 0
    assert run(NETWORK, "--rates", "0.5", "--table", tmp_path / "table.json").exit_code == 0
    assert "it has --rates 0.5 --skip" in refusal(NETWORK, "--rates", "0.7", "--table", tmp_path / "table.json")


@pytest.mark.parametrize("options", [("--threads", "0"), ("--device", "cpu"), ("--seconds", "0")])
def test_how_to_measure_is_not_said_to_an_export(tmp_path, options):
    assert "give them to measure.py" in refusal(NETWORK, "--export", tmp_path / "new", *options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("options", [("--rates", "0.5"), ("--skip",), ("--round-to", "4"), ("--scores", "x")])
def test_what_has_no_effect_on_several_networks_is_refused(options):
    assert f"{options[0]}: goes with a single MODEL" in refusal(NETWORK, NETWORK, *options)


@pytest.mark.parametrize("models", [1, 2])
def test_a_gpu_that_is_not_there_is_refused(models, monkeypatch):
    monkeypatch.setattr(module, "cuda_obstacle", lambda: "there is none")
    expected = "--device cuda: there is none; run on the CPU with --device cpu"
    assert refusal(*[NETWORK] * models, "--device", "cuda") == expected


def test_the_table_is_written_though_nobody_reads_what_is_printed(tmp_path):
    nobody, output = os.pipe()
    os.close(nobody)
    program = "from wootz.tools.cli import main; main()"
    arguments = [
        "latency",
        NETWORK,
        "--threads",
        "1",
        "--seconds",
        "0",
        "--rates",
        "0.5",
        "-o",
        tmp_path / "table.json",
    ]
    subprocess.run([sys.executable, "-c", program, *map(str, arguments)], stdout=output, check=False)
    os.close(output)
    assert read_table(tmp_path / "table.json").rates == (0.5,)


def written(file, text):
    """A network in its textual form as a binary file."""
    onnx.save(parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}'), file)
    return file


def test_networks_of_different_sizes_are_compared_with_a_warning(tmp_path):
    small = written(tmp_path / "small.onnx", "g (float[N,3,4,4] x) => (float[N,3,4,4] y) { y = Neg(x) }")
    last = written(tmp_path / "last.onnx", "g (float[N,4,4,3] x) => (float[N,4,4,3] y) { y = Neg(x) }")
    large = written(tmp_path / "large.onnx", "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Neg(x) }")
    assert run(small, last, "--batch", "2").stderr == ""
    done = run(small, large)
    assert done.exit_code == 0, done.output
    assert done.stderr == "warning: these networks take inputs of different sizes\n"
    assert "1x3x4x4" in done.stdout
    assert "1x3x8x8" in done.stdout
    assert "small.onnx: it takes images of Nx3x4x4, not 8x8: leave --size out" in refusal(small, large, "--size", "8x8")


def test_a_batch_that_a_network_does_not_take_is_refused(tmp_path):
    fixed = written(tmp_path / "fixed.onnx", "g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    free = written(tmp_path / "free.onnx", "g (float[N,3] x) => (float[N,3] y) { y = Neg(x) }")
    assert refusal(free, fixed, "--batch", "4") == f"{fixed}: it takes batches of 2, not 4: leave --batch out"
    done = run(fixed, free)
    assert "2x3" in done.stdout
    assert "1x3" in done.stdout
    assert "different sizes" in done.stderr
    assert run(fixed, free, "--batch", "2").stderr == ""


def test_all_inputs_are_fed(tmp_path):
    """Of other types and ranks, too: a number, a row of truth values, numbers of rows."""
    model = written(
        tmp_path / "several.onnx",
        """g (float[N,3] x, int64[N] rows, bool[3] where, double scale, float[N,3] other) => (float[N,3] y)
        { f = Cast<to = 1>(scale) a = Mul(x, f) b = Where(where, a, other) y = Gather(b, rows) }""",
    )
    done = run(model, model, "--batch", "2")
    assert done.exit_code == 0, done.output
    assert "2x3" in done.stdout


REFUSED_BESIDE = {
    "text": (b"hello, world\n" * 9, "not an ONNX model"),
    "empty": (b"", "not an ONNX model (it has no graph)"),
    "unknown operator": ("g (float[3] x) => (float[3] y) { y = Nothing(x) }", "ONNX Runtime: "),
    "words": ("g (string[3] x) => (string[3] y) { y = Identity(x) }", "input x takes tensor(string): only numbers"),
    "no input": ("g () => (float[1] y) <float[1] w = {1}> { y = Neg(w) }", "it has no input"),
    "open": ("g (float[1,L] x) => (float[1,L] y) { y = Neg(x) }", "leaves the size of its input open: input x is 1xL"),
    "fails": ("g (float[N,3] x, float[M,4] z) => (float[N,3] y) { y = Add(x, z) }", "ONNX Runtime: "),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED_BESIDE.values(), ids=REFUSED_BESIDE)
def test_what_can_not_be_run_beside_another_network_is_refused_by_name(tmp_path, content, reason):
    file = tmp_path / "other.onnx"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        written(file, content)
    said = refusal(NETWORK, file)
    assert said.startswith(f"{file}: ")
    assert reason in said
    if isinstance(content, bytes):
        assert said == refusal(file)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 3, 8, 8), (2, 3)),
        ((1, 8, 8, 3), (1, 2)),
        ((1, 3, "H", "W"), (2, 3)),
        ((1, "H", "W", 3), (1, 2)),
        ((1, 3, None, 224), (2, 3)),
        ((1, 1, 4, 4), (2, 3)),
    ],
)
def test_where_height_and_width_are(shape, axes):
    assert _spatial_axes(shape) == axes


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--rates", "0"), "rates are between 0 and 1"),
        (("--rates", "1.0000001"), "'1.0000001': rates are between 0 and 1"),
        (("--rates", "skip,0.5"), "are no rates: numbers with commas between them, as in 0.25,0.5 (--skip leaves"),
        (("--seconds", "nan"), "nan is no number of seconds"),
    ],
)
def test_values_that_are_no_numbers_or_rates(options, reason):
    done = run(NETWORK, *options) if "--seconds" not in options else run(NETWORK, "--export", "x", *options)
    assert done.exit_code == 2
    assert reason in " ".join(done.output.replace("│", " ").split())


def test_where_nothing_was_fitted_or_checked_nothing_is_claimed(table):
    """Also on why what is outside of modules is below 0."""
    content = json.loads(table.read_text())
    for part in content["modules"]:
        part["pieces"] = [piece for piece in part["pieces"] if piece["rate"] in (0, 0.5)]
        for piece in part["pieces"]:
            piece["times"] = {"low_ms": 1, "median_ms": 1, "high_ms": 1, "runs": 20, "outliers": 0}
    content["networks"] = content["networks"][:1]
    table.write_text(json.dumps(content))
    done = run(NETWORK, "--rates", "0.5", "--table", table)
    assert done.exit_code == 0, done.output
    assert "outside of modules is below 0: modules that run alone have a start and an end each" in done.output
    assert "isn't known: there are too few networks to tell it by" in done.output
    assert "predictions are the sum of the pieces" in done.output
    assert "corrected" not in done.output
