"""The command line of wootz-opt. What passes do is in tests/lit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import constants
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.subspace import SKIP
from wootz.passes.pruning import materializer
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.registry import PIPELINES
from wootz.runtime.session import evaluate
from wootz.tools.cli import run_command
from wootz.tools.opt import opt

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,1,2,2] x) => (float[N,1,2,2] y)
<float[2,1,1,1] w = {1,2}, float[2] s = {2,2}, float[2] z = {0,0}, float[1,2,1,1] v = {3,4}>
{
  [conv] a = Conv(x, w)
  [bn] b = BatchNormalization(a, s, z, z, s)
  [last] y = Conv(b, v)
}
"""


@pytest.fixture
def network(tmp_path: Path) -> Path:
    file = tmp_path / "net.onnxtxt"
    file.write_text(NETWORK)
    return file


def run(*arguments: object) -> int:
    """The exit code of `wootz-opt arguments`."""
    with pytest.raises(SystemExit) as leaving:
        run_command(opt, [str(a) for a in arguments])
    return int(leaving.value.code or 0)


def test_the_result_goes_to_standard_output(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(network, "--pass=fold-batchnorm") == 0
    out = capsys.readouterr().out
    assert "BatchNormalization" not in out
    assert len(parse_text(out).graph.nodes) == 2


def test_the_result_goes_to_a_file_with_all_weights(network: Path, tmp_path: Path) -> None:
    for name in ("out.onnx", "out.onnxtxt"):
        assert run(network, "--pass-pipeline=fold-batchnorm,verify", "-o", tmp_path / name) == 0
        assert constants(load(tmp_path / name).graph)["w"].shape == (2, 1, 1, 1)


def test_large_weights_are_elided_where_asked(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(network, "--elide-weights=1") == 0
    assert f'w = ["location": "{network}", "sha256": "' in capsys.readouterr().out
    assert run(network, "--elide-weights=1", "-o", tmp_path / "out.onnxtxt") == 0
    assert '"sha256"' in (tmp_path / "out.onnxtxt").read_text()


def test_a_plan_is_written_and_replayed(network: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert run(network, "--pass=prune-filters{rate=0.5}", "--plan", plan, "-o", tmp_path / "a.onnx") == 0
    assert json.loads(plan.read_text())["layers"][0]["keep"] == [1]
    assert run(network, f"--pass=apply-plan{{plan={plan}}}", "-o", tmp_path / "b.onnx") == 0
    a, b = (constants(load(tmp_path / name).graph) for name in ("a.onnx", "b.onnx"))
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name])


def test_a_module_that_is_left_out_is_not_in_the_file(tmp_path: Path) -> None:
    """The files of both runs, by rates and by the plan, are what is left of the network in ONNX Runtime."""
    network, plan, folded = DIGITS / "net.prototxt", tmp_path / "plan.json", "fold-batchnorm,eliminate-dead"
    pruned = ("--pass-pipeline=prune-blocks{rates=0.5,skip,0,1}," + folded, "--plan", plan)
    assert run(network, *pruned, "-o", tmp_path / "a.onnx") == 0
    assert [module["name"] for module in json.loads(plan.read_text())["skipped"]] == ["res2b", "res3b"]
    assert run(network, f"--pass-pipeline=apply-plan{{plan={plan}}},{folded}", "-o", tmp_path / "b.onnx") == 0
    assert [module.name for module in load(tmp_path / "a.onnx").modules] == ["res2a", "res3a"]
    assert not any(node.op_type == "Identity" for node in onnx.load(tmp_path / "a.onnx").graph.node)
    pruner = BlockPruner.of(import_caffe(network).model)
    expected = pruner.materialize(pruner.plan({"res2a": 0.5, "res2b": SKIP, "res3b": SKIP}))
    feeds = {"data": np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)}
    for name in ("a.onnx", "b.onnx"):
        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, feeds)
        (wanted,) = evaluate(expected, feeds).values()
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_ir_is_printed_before_and_after(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--print-ir-before", "verify", "--print-ir-after", "fold-batchnorm")
    assert run(network, "--pass-pipeline=fold-batchnorm,verify", *flags, "-o", tmp_path / "out.onnx") == 0
    printed = capsys.readouterr().err
    assert printed.index("IR after fold-batchnorm") < printed.index("IR before verify")
    assert run(network, "--pass-pipeline=fold-batchnorm,verify", "--print-ir-after-all", "-o", tmp_path / "o.onnx") == 0
    assert capsys.readouterr().err.count("IR after") == 2
    assert run(network, "--print-ir-after", "verify") == 1
    assert "the pipeline has no such pass" in capsys.readouterr().err


def test_timing_and_statistics(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(network, "--pass=fold-batchnorm", "--timing", "--stats", "-o", tmp_path / "out.onnx") == 0
    printed = capsys.readouterr().err
    assert "fold-batchnorm: 1 folded" in printed
    assert "s  fold-batchnorm" in printed
    assert "s  all passes" in printed
    assert "of it" not in printed
    assert run(network, "--pass=prune-filters{rate=0.5}", "--timing", "-o", tmp_path / "out.onnx") == 0
    assert re.search(r"s  prune-filters \(\d+\.\d{4} s of it to check what was pruned\)", capsys.readouterr().err)
    assert run(network, "--pass=prune-filters{rate=0.5}", "--timing", "--no-check", "-o", tmp_path / "out.onnx") == 0
    assert "of it" not in capsys.readouterr().err


LIAR = """
from dataclasses import dataclass
from wootz.passes.base import Pass, PassResult

@dataclass(frozen=True)
class Double(Pass):
    'Doubles a weight, and says that it changes nothing.'
    name = "double"
    preserves_outputs = True
    def apply(self, model):
        result = model.copy()
        tensor = result.graph.tensors()["w"]
        tensor.values = 2 * tensor.values
        return PassResult(result, True)
"""


def test_a_pass_that_breaks_its_promise_is_found(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "liar.py").write_text(LIAR)
    flags = ("--load-pass", tmp_path / "liar.py", "--pass-pipeline=fold-batchnorm,double,verify")
    assert run(network, *flags) == 0
    capsys.readouterr()
    assert run(network, *flags, "--check-equivalence") == 1
    assert capsys.readouterr().err.startswith("error: double: changes output 'y': max|a-b|/max|b| is ")


def test_diagnostics_are_checked(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = NETWORK.replace("v = {3,4}", "u = {3,4}")
    file = tmp_path / "parts.onnxtxt"
    flags = (file, "--split-input-file", "--verify-diagnostics")
    file.write_text(f"{NETWORK}# -----\n# expected-error: reads 'v', which nothing computes\n{broken}")
    assert run(*flags) == 0
    file.write_text(f"{NETWORK}# -----\n# expected-error: something else\n{broken}")
    assert run(*flags) == 1
    assert "unexpected error: Conv node 'last': reads 'v'" in capsys.readouterr().err
    file.write_text(f"# expected-error: anything\n{NETWORK}")
    assert run(*flags) == 1
    assert f"{file}:1: expected an error with 'anything', and there was none" in capsys.readouterr().err


def test_a_part_that_fails_is_reported_without_diagnostics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "parts.onnxtxt").write_text(f"nonsense\n# -----\n{NETWORK}")
    assert run(tmp_path / "parts.onnxtxt", "--split-input-file") == 1
    captured = capsys.readouterr()
    assert "parts.onnxtxt:2:1: Expected character = not found near 'nonsense'" in captured.err
    assert "MatMul" not in captured.out
    assert "[last] y = Conv" in captured.out


def test_passes_are_listed_and_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list-passes") == 0
    assert "prune-blocks" in capsys.readouterr().out
    assert run("--help-pass", "prune-blocks") == 0
    explained = capsys.readouterr().out
    assert "its top layer left whole" in explained
    assert "criterion" in explained


def test_pipelines_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list-pipelines") == 0
    listed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert listed == PIPELINES


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--pass=fold-batchnrm",), 1, "error: no pass named 'fold-batchnrm': did you mean 'fold-batchnorm'?"),
        (("--plan", "plan.json"), 1, "error: --plan needs one pass that prunes; the pipeline has 0"),
        (("--pass=prune-filters{rate=1}",), 1, "error: prune-filters: 1.0 is not a pruning rate"),
        (("--pass=prune-filters{rate=nan}",), 1, "error: prune-filters: nan is not a pruning rate"),
        (("--pass=prune-filters{rate=0.5 round-to=0}",), 1, "round-to=0 is no number of filters"),
        (("--pass=prune-blocks{rate=0.5 min-channels=-1}",), 1, "min-channels=-1 is no number of filters"),
        (("--pass=prune-filters{params=abc}",), 1, "params=abc is no target: a share like 0.5x, or a number"),
        (("--pass=prune-filters{params=0x}",), 1, "params=0x is no target: it has to be above 0"),
        (('--pass=apply-plan{plan="\\q"}',), 1, "is no quoted text"),
        (("--pass=verify", "-o", "net.txt"), 1, "error: net.txt: a model is written to .onnx, .onnxtxt or -"),
        (("--colour",), 2, "No such option"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], code: int, message: str, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(network, *arguments) == code
    assert message in capsys.readouterr().err


def test_a_model_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--pass=verify") == 2
    assert "Missing argument 'MODEL'" in capsys.readouterr().err


def test_starting_imports_nothing_large() -> None:
    code = "import sys, wootz.tools.opt; print([m for m in ('onnx', 'numpy', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_console_script_reads_standard_input(network: Path) -> None:
    script = Path(sys.executable).with_name("wootz-opt")
    done = subprocess.run([script, "-", "--pass=fold-batchnorm"], input=NETWORK, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[last] y = Conv (b, v)" in done.stdout


def test_a_binary_model_of_elided_weights_is_refused(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(parse_text(NETWORK), tmp_path / "net.onnx")
    assert run(tmp_path / "net.onnx", "--elide-weights=1", "-o", tmp_path / "bare.onnxtxt") == 0
    (tmp_path / "net.onnx").unlink()
    assert run(tmp_path / "bare.onnxtxt", "-o", tmp_path / "out.onnx") == 1
    assert "was elided from the text" in capsys.readouterr().err


def test_running_a_pass_imports_nothing_that_it_does_not_need(network: Path) -> None:
    code = (
        "import sys; from wootz.tools.opt import opt;"
        f"opt.main([{str(network)!r}, '--pass=prune-filters{{rate=0.5}}', '--no-check'], standalone_mode=False);"
        "print([m for m in ('matplotlib', 'onnxruntime', 'torch', 'PIL', 'scipy', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


FAULTY = """
from dataclasses import dataclass
from wootz.passes.base import Pass

@dataclass(frozen=True)
class Faulty(Pass):
    'Has a fault.'
    name = "faulty"
    def apply(self, model):
        raise KeyError("boom")
"""


def test_the_pass_with_a_fault_is_named(network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    assert run(network, "--load-pass", tmp_path / "faulty.py", "--pass-pipeline=verify,faulty") == 1
    assert capsys.readouterr().err == "error: KeyError: 'boom' (in pass faulty (after verify): --debug shows where)\n"


def test_weights_are_left_out_of_a_text_again_and_again(network: Path, tmp_path: Path) -> None:
    """The text says where the values are, not from which text they were left out."""
    save(parse_text(NETWORK), tmp_path / "net.onnx")
    first, second = tmp_path / "first.onnxtxt", tmp_path / "second.onnxtxt"
    assert run(tmp_path / "net.onnx", "--elide-weights=1", "-o", first) == 0
    assert run(first, "--elide-weights=1", "-o", second) == 0
    assert second.read_text() == first.read_text()
    third = tmp_path / "third.onnxtxt"
    assert run(network, "--elide-weights=1", "-o", third) == 0  # a text can hold them too
    np.testing.assert_array_equal(constants(load(third).graph)["w"], constants(load(network).graph)["w"])


@pytest.mark.parametrize("name", ["prune-blocks", "prune-filters"])
def test_the_command_of_the_project_works_as_it_stands(name: str, network: Path, tmp_path: Path) -> None:
    """`wootz-opt --pass=prune-blocks model.onnx`: a binary model, its pruned text on standard output."""
    save(parse_text(NETWORK), tmp_path / "model.onnx")
    script = Path(sys.executable).with_name("wootz-opt")
    done = subprocess.run([script, f"--pass={name}", tmp_path / "model.onnx"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert constants(parse_text(done.stdout).graph)["w"].shape == (1, 1, 1, 1)
    assert done.stderr.startswith(f"note: {name}: rate=0.5")


TALKER = """
import os
from dataclasses import dataclass
from wootz.passes.base import Pass, PassResult

@dataclass(frozen=True)
class Talker(Pass):
    'Prints.'
    name = "talker"
    def apply(self, model):
        print("chatter of a library in Python")
        os.system("echo chatter of a library in C")
        return PassResult(model, False)
"""


def test_standard_output_holds_the_result_alone(network: Path, tmp_path: Path) -> None:
    (tmp_path / "talker.py").write_text(TALKER)
    script = Path(sys.executable).with_name("wootz-opt")
    command = [script, "--load-pass", tmp_path / "talker.py", "--pass=talker", network]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(parse_text(done.stdout).graph.nodes) == 3
    assert done.stdout.startswith("<")
    assert "chatter of a library in Python" in done.stderr
    assert "chatter of a library in C" in done.stderr


def test_a_network_that_does_not_work_is_not_written(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The materialiser takes the wrong filters."""
    honest = materializer.slice_parameter
    monkeypatch.setattr(materializer, "slice_parameter", lambda values, *use: honest(values[::-1], *use))
    flags = ("--pass=prune-filters{rate=0.5}", "-o", tmp_path / "out.onnx")
    assert run(network, *flags) == 1
    assert "'a' is the first tensor that differs: max|a-b|/max|b| is" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()
    assert run(network, *flags, "--no-check") == 0


def test_help_says_what_a_pass_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help-pass", "apply-plan") == 0
    assert "\nNeeds a plan: apply-plan{plan=FILE.json}.\n" in capsys.readouterr().out


def test_a_training_graph_that_does_not_load_is_not_written(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """float16 in an operator that ONNX Runtime has in other types only."""
    metadata = 'metadata_props: ["wootz.training": "{}"]'
    (tmp_path / "graph.onnxtxt").write_text(f"""<ir_version: 8, opset_import: ["" : 18], {metadata}>
        g (bfloat16[1,1,4,4] x, bfloat16[1,1,1,1] w) => (bfloat16[1,1,4,4] y) <bfloat16[1,1,1,1] w = {{1}}>
        {{ y = Conv(x, w) }}""")
    assert run(tmp_path / "graph.onnxtxt", "-o", tmp_path / "graph.onnx") == 1
    assert f"{tmp_path}/graph.onnx: not written, as it can't be loaded: ONNX Runtime: " in capsys.readouterr().err
    assert sorted(f.name for f in tmp_path.iterdir()) == ["graph.onnxtxt", "net.onnxtxt"]


def test_what_a_pass_refuses_names_the_file(network: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(network, "--pass=attach-loss{output=none}") == 1
    message = capsys.readouterr().err
    assert message.startswith("error: attach-loss: ")
    assert message.endswith(f" ({network})\n")
