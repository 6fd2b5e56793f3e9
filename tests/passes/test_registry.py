"""Passes from elsewhere: of installed packages, and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from wootz.passes.errors import InputError, PassError, WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pass, print_pass
from wootz.passes.registry import PASSES, load_passes, pass_class, pass_names

PASS = """
from dataclasses import dataclass
from wootz.passes.base import Pass, PassResult, option

@dataclass(frozen=True)
class Polish(Pass):
    "Does nothing, thoroughly."
    name = "polish"
    times: int = option(1, "how often")
    def apply(self, model):
        return PassResult(model, False)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution `polisher` of one module and the entry points that a test writes."""
    (tmp_path / "polisher.py").write_text(PASS)
    info = tmp_path / "polisher-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polisher\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return info / "entry_points.txt"


def test_a_pass_of_an_installed_package_is_found_by_its_entry_point(package: Path) -> None:
    package.write_text("[wootz.passes]\npolish = polisher:Polish\n")
    assert "polish" in pass_names()
    assert print_pass(parse_pass("polish{times=3}")) == "polish{times=3}"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("polisher:Missing", "pass 'polish' of polisher:Missing can't be loaded"),
        ("nowhere:Polish", "pass 'polish' of nowhere:Polish can't be loaded: No module named 'nowhere'"),
        ("polisher:dataclass", "entry point polisher:dataclass: not a pass"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_named(package: Path, target: str, message: str) -> None:
    package.write_text(f"[wootz.passes]\npolish = {target}\n")
    with pytest.raises(WootzError, match=message):
        pass_class("polish")


def test_a_file_without_a_pass_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "broken.py").write_text("x = \n")
    (tmp_path / "fine.py").write_text(PASS)
    with pytest.raises(InputError, match=r"empty.py: defines no pass"):
        load_passes(tmp_path / "empty.py")
    with pytest.raises(InputError, match=r"broken.py: SyntaxError: "):
        load_passes(tmp_path / "broken.py")
    assert list(load_passes(tmp_path / "fine.py")) == ["polish"]


NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[N,1,4,4] x) => (float[N,2] y)
<float[4,1,1,1] w = {1,2,3,4}, float[4] s = {1,1,1,1}, float[4] z = {0,0,0,0}, float[2,4] v = {1,2,3,4,5,6,7,8},
 float[2] c = {0,0}>
{
  [conv] a = Conv(x, w)
  [bn] b = BatchNormalization(a, s, z, z, s)
  [relu] r = Relu(b)
  [pool] p = GlobalAveragePool(r)
  [flat] f = Flatten(p)
  [fc] y = Gemm<transB = 1>(f, v, c)
}
"""


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_runs_with_its_defaults_or_its_help_says_what_it_needs(name: str) -> None:
    pass_ = pass_class(name)()
    if pass_.requires:
        with pytest.raises(PassError):
            pass_.apply(parse_text(NETWORK))
    else:
        verify(pass_.apply(parse_text(NETWORK)).model)
