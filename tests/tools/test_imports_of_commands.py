"""What a command imports before it does anything: nobody waits for packages that are needed later, or never."""

import subprocess
import sys

import pytest

from wootz.tools.cli import COMMANDS

PLOTS = {"matplotlib", "jinja2"}
LATER = {
    "run": PLOTS,
    "status": PLOTS | {"onnxruntime", "PIL", "onnx", "onnx_graphsurgeon"},
    "store": PLOTS | {"onnxruntime", "PIL"},
    "import": PLOTS,
    "blocks": PLOTS,
    "simulate": PLOTS,
    "subspace": PLOTS,
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_is_imported(command):
    program = (
        "import sys\n"
        "from wootz.tools.cli import wootz\n"
        f"wootz.get_command(None, {command!r})\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not LATER.get(command, set()) & set(done.stdout.split())


def test_the_report_is_what_needs_them():
    program = "import sys, wootz.runtime.report\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) >= PLOTS
