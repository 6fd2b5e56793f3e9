"""The import statements of the project: their direction, who alone uses a package, and how passes are named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from wootz.passes.registry import PASSES, pass_class

ROOT = Path(__file__).parents[1]
ROOMS = ("passes", "frontend", "runtime", "tools")
MAY_IMPORT = {
    "passes": {"passes"},
    "frontend": {"passes", "frontend"},
    "runtime": {"passes", "runtime"},
    "tools": {"passes", "frontend", "runtime", "tools"},
}
ROOMS_OF_PASSES = {
    "errors": set(),
    "arrays": set(),
    "durable": set(),
    "fillers": {"errors"},
    "metadata": {"errors"},
    "ir": {"errors", "durable", "metadata"},
    "plan": {"errors", "metadata"},
    "base": {"errors", "ir", "plan"},
    "equivalence": {"errors", "ir", "base"},
    "registry": {"errors", "base"},
    "pipeline": {"errors", "ir", "base", "registry"},
    "analysis": {"errors", "arrays", "ir", "base", "pipeline"},
    "blocks": {"errors", "ir", "plan", "analysis"},
    "pruning": {"errors", "ir", "plan", "base", "equivalence", "analysis"},
    "transforms": {"errors", "arrays", "fillers", "metadata", "ir", "plan", "base", "analysis", "pruning"},
    "training": {"errors", "metadata", "ir", "plan", "base", "pipeline", "analysis", "blocks", "pruning", "transforms"},
    "multiplex": {"errors", "ir", "plan", "pruning", "transforms"},
    "reduction": {"errors", "ir", "analysis", "pruning"},
}
"""Which folders and modules of `passes/` import which: exactly these, and only from above."""
ONLY_IN = {
    "onnx_graphsurgeon": {"passes/ir/model.py"},
    "onnx.parser": {"passes/ir/text.py"},
    "onnx.printer": {"passes/ir/text.py"},
    "onnxruntime": {"runtime/session.py", "runtime/latency_table/measure.py", "runtime/delivery/quantization.py"},
    "scipy": {"runtime/strategies/choice.py"},
    "distributed": {"runtime/executors/dask.py"},
    "tensorboardX": {"runtime/reporting/scalars.py"},
    "mpi4py": {"runtime/cluster.py", "runtime/executors/mpi.py"},
}
ONLY_IN_TOOLS = {"click", "rich"}


def sources() -> list[str]:
    return sorted(str(f.relative_to(ROOT)) for room in ROOMS for f in (ROOT / room).rglob("*.py"))


def imported_modules(file: str) -> Iterator[str]:
    """Every module that a file imports, `from a import b` as `a.b` too, at any depth."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used_attributes(file: str) -> Iterator[str]:
    """Dotted names, such as `onnx.parser.parse_model`."""
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node)


@pytest.mark.parametrize("file", sources())
def test_imports_point_one_way(file: str) -> None:
    room = file.split("/")[0]
    for module in imported_modules(file):
        if module.startswith("wootz."):
            assert module.split(".")[1] in MAY_IMPORT[room], f"{file} imports {module}"


def test_rooms_of_passes_import_what_stands_above_them() -> None:
    found: dict[str, set[str]] = {room: set() for room in ROOMS_OF_PASSES}
    for file in sources():
        if file.startswith("passes/") and file != "passes/__init__.py":
            room = file.split("/")[1].removesuffix(".py")
            imported = [m.split(".")[2] for m in imported_modules(file) if m.startswith("wootz.passes.")]
            found[room] |= set(imported) - {room}
    assert found == ROOMS_OF_PASSES
    order = list(ROOMS_OF_PASSES)
    upward = [(a, b) for a, above in ROOMS_OF_PASSES.items() for b in above if order.index(b) > order.index(a)]
    assert not upward, "imports run back up"


@pytest.mark.parametrize("file", sources())
def test_one_module_alone_uses_each_of_these_packages(file: str) -> None:
    names = [*imported_modules(file), *used_attributes(file)]
    for package, users in ONLY_IN.items():
        if file not in users:
            assert not any(n == package or n.startswith(f"{package}.") for n in names), f"{file} uses {package}"
    if not file.startswith("tools/"):
        assert not {n.split(".")[0] for n in imported_modules(file)} & ONLY_IN_TOOLS


@pytest.mark.parametrize("file", [f for f in sources() if not f.startswith("tools/")])
def test_only_tools_print(file: str) -> None:
    calls = [n for n in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(n, ast.Call)]
    assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), f"{file} prints"


@pytest.mark.parametrize("name", sorted(PASSES))
def test_one_module_is_one_name_and_one_textual_test(name: str) -> None:
    module, _, class_name = PASSES[name].partition(":")
    cls = pass_class(name)
    assert module.rpartition(".")[2] == name.replace("-", "_")
    assert cls.name == name
    assert cls.__name__ == class_name
    assert cls.summary()
    assert all(f.metadata["help"] for f in cls.options())
    assert (ROOT / "tests" / "lit" / f"{name}.onnxtxt").is_file()


def test_every_pass_is_registered() -> None:
    """A module that defines a pass is in the table; the files in tests/lit are passes."""
    for file in sources():
        if file.startswith(("passes/transforms/", "passes/training/")):
            tree = ast.parse((ROOT / file).read_text())
            bases = [b for n in tree.body if isinstance(n, ast.ClassDef) for b in n.bases]
            if any(isinstance(b, ast.Name) and b.id == "Pass" for b in bases):
                assert Path(file).stem.replace("_", "-") in PASSES, f"{file} defines a pass"
    assert {f.stem for f in (ROOT / "tests" / "lit").glob("*.onnxtxt")} <= set(PASSES)
