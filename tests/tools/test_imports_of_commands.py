"""What a command imports before it does anything: nobody waits for packages that are needed later, or never."""

import subprocess
import sys

import click
import pytest

from wootz.tools.cli import COMMANDS, wootz

PLOTS = {"matplotlib", "jinja2"}
LATER = {
    "run": PLOTS | {"scipy"},
    "search": PLOTS | {"scipy"},
    "status": PLOTS | {"onnxruntime", "PIL", "onnx", "onnx_graphsurgeon"},
    "store": PLOTS | {"onnxruntime", "PIL"},
    "cache": PLOTS | {"onnxruntime", "PIL"},
    "import": PLOTS,
    "blocks": PLOTS,
    "latency": PLOTS,
    "simulate": PLOTS,
    "report": PLOTS,
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
    assert not LATER[command] & set(done.stdout.split())


def test_help_imports_no_command():
    program = (
        "import sys\n"
        "from wootz.tools.cli import wootz\n"
        "wootz.main(['--help'], standalone_mode=False)\n"
        "print(*(name for name in sys.modules if name.startswith('wootz.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Commands:" in done.stdout
    imported = set(done.stdout.splitlines()[-1].split())
    assert imported == {"wootz.passes", "wootz.passes.errors", "wootz.tools", "wootz.tools.cli"}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_lists_commands_as_they_describe_themselves(width):
    by_themselves = click.Group("wootz", commands={name: wootz.get_command(None, name) for name in COMMANDS})
    by_themselves.list_commands = lambda context: list(COMMANDS)
    expected, shown = click.HelpFormatter(width=width), click.HelpFormatter(width=width)
    by_themselves.format_commands(None, expected)
    wootz.format_commands(None, shown)
    assert shown.getvalue() == expected.getvalue()


def test_the_report_is_what_needs_them():
    program = "import sys, wootz.runtime.reporting.report\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) >= PLOTS
