"""Runs `wootz-opt` on the textual models in this folder and checks what it prints with filecheck."""

import sys
from pathlib import Path

import lit.formats

config.name = "wootz"  # noqa: F821
config.test_format = lit.formats.ShTest(execute_external=False)  # noqa: F821
config.suffixes = [".onnxtxt"]  # noqa: F821
config.test_exec_root = config.environment.get("WOOTZ_LIT_OUTPUT", "build/lit")  # noqa: F821
tools = Path(sys.executable).parent
config.substitutions += [("%{python}", sys.executable)]  # noqa: F821
config.substitutions += [("wootz-opt", str(tools / "wootz-opt")), ("filecheck", str(tools / "filecheck"))]  # noqa: F821
config.environment["OMP_NUM_THREADS"] = "1"  # noqa: F821
