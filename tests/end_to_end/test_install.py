"""A regular install, next to the editable one that the other tests run in."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from site import getsitepackages

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The Python of a new environment with Wootz's wheel, and everything else from this environment."""
    folder = tmp_path_factory.mktemp("install")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, REPOSITORY]
    subprocess.run([str(part) for part in build], check=True, timeout=300)
    (wheel,) = folder.glob("wootz-*.whl")
    venv.create(folder / "venv")
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "dependencies.pth").write_text("\n".join(getsitepackages()))
    return folder / "venv" / "bin" / "python"


def run(python: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(python), "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300)


def test_the_wheel_holds_everything(installed, tmp_path):
    code = """
import wootz, wootz.passes.blocks.sequitur as sequitur
from importlib.resources import files
assert "site-packages" in wootz.__file__, wootz.__file__
print(sequitur.infer_grammar([1, 2, 1, 2, 1, 2, 1, 2]).expand())
assert files("wootz.runtime.reporting").joinpath("report.html.jinja").is_file()
assert files("wootz.examples").joinpath("digits", "net.prototxt").is_file()
assert files("wootz").joinpath("py.typed").is_file()
"""
    done = run(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_command_works_there(installed, tmp_path):
    network = REPOSITORY / "examples" / "digits" / "net.prototxt"
    code = f"""
import sys
from wootz.tools.cli import main
sys.argv = ["wootz", "import", {str(network)!r}, "-o", "net.onnx"]
main()
"""
    done = run(installed, code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.onnx").is_file()


@pytest.mark.parametrize("name", ["passes", "frontend", "runtime", "tools", "examples"])
def test_folders_of_the_checkout_are_no_packages_of_their_own(name, tmp_path):
    done = run(Path(sys.executable), f"import {name}", tmp_path)
    assert "ModuleNotFoundError" in done.stderr
