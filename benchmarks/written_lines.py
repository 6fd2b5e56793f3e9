"""How many lines of code someone has to write."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Collection, Iterator
from pathlib import Path

NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def written_lines(script: Path, given: Collection[str] = ()) -> int:
    """Those of a script and of the modules beside it that it imports, but for the `given` ones."""
    found: dict[Path, int] = {}
    waiting = [script]
    while waiting:
        file = waiting.pop()
        if file not in found:
            source = file.read_text()
            found[file] = lines_of_code(source)
            beside = (file.with_name(f"{name}.py") for name in _imported(source) if name not in given)
            waiting += [module for module in beside if module.exists()]
    return sum(found.values())


def lines_of_code(source: str) -> int:
    """Lines that aren't blank, and have more than a comment or a documentation string."""
    code, documentation = set[int](), set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code - documentation)


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
