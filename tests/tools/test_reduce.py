"""wootz-reduce finds the part of a model that makes a command fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model
from wootz.passes.ir.text import parse_text
from wootz.passes.reduction import reduce_model, size
from wootz.tools.cli import run_command
from wootz.tools.reduce import reduce

NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,2,8,8] x) => (float[N,2,8,8] y, float[N,4,8,8] z)
<
  float[4,2,1,1] a = {1,2,3,4,5,6,7,8}, float[4,4,1,1] b = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7},
  float[2,4,1,1] c = {1,2,3,4,5,6,7,8}
>
{
  [one] s = Conv(x, a)
  [two] t = Relu(s)
  [three] u = LRN<size = 3>(t)
  [four] z = Conv(u, b)
  [five] v = Sigmoid(z)
  [six] y = Conv(v, c)
}
"""


def has(operator: str) -> Callable[[Model], bool]:
    return lambda model: any(node.op == operator for node in model.graph.nodes)


@pytest.mark.parametrize("operator", ["LRN", "Sigmoid", "Relu"])
def test_one_node_is_left(operator: str) -> None:
    reduced = reduce_model(parse_text(NETWORK), has(operator))
    assert [node.op for node in reduced.graph.nodes] == [operator]


def test_layers_and_images_shrink() -> None:
    def two_convolutions(model: Model) -> bool:
        return sum(node.op == "Conv" for node in model.graph.nodes) == 2

    reduced = reduce_model(parse_text(NETWORK), two_convolutions)
    assert [node.op for node in reduced.graph.nodes] == ["Conv", "Conv"]
    assert size(reduced) <= (2, 5)


def test_the_command_is_run_on_candidates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnxtxt").write_text(NETWORK)
    code = "import sys; text = open(sys.argv[1]).read(); print('oh no'); sys.exit(3 if 'LRN' in text else 0)"
    command = [str(tmp_path / "net.onnxtxt"), "-o", str(tmp_path / "out.onnxtxt"), "--match", "oh", "--"]
    with pytest.raises(SystemExit) as leaving:
        run_command(reduce, [*command, sys.executable, "-c", code, "{}"])
    assert leaving.value.code == 0
    assert [node.op for node in load(tmp_path / "out.onnxtxt").graph.nodes] == ["LRN"]
    assert "1 nodes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [("pass", "the command does not fail on it"), ("raise SystemExit(1)", "its output has no match of 'oh'")],
)
def test_a_command_that_does_not_fail_is_refused(
    code: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.onnxtxt").write_text(NETWORK)
    arguments = [str(tmp_path / "net.onnxtxt"), "-o", str(tmp_path / "o.onnx"), "--match", "oh", "--"]
    with pytest.raises(SystemExit) as leaving:
        run_command(reduce, [*arguments, sys.executable, "-c", code, "{}"])
    assert leaving.value.code == 1
    assert message in capsys.readouterr().err
