"""docs/training-graphs.md lists the parameters, the operators that have a gradient, and those that have none."""

from __future__ import annotations

from pathlib import Path

import onnx.defs

from wootz.passes.ir.model import OPSET
from wootz.passes.training.gradient_rules import PASSING_OPERATORS, RULES, WEIGHT_OPERANDS, WITHOUT_GRADIENT
from wootz.passes.training.rules.elementwise import ELEMENTWISE
from wootz.passes.training.rules.linear import LINEAR
from wootz.passes.training.rules.movement import MOVEMENT
from wootz.passes.training.rules.normalization import NORMALIZATION
from wootz.passes.training.rules.pooling import POOLING
from wootz.passes.training.rules.reduction import REDUCTION

PAGE = Path(__file__).parents[3] / "docs" / "training-graphs.md"
BEGIN = "<!-- operators: from gradient_rules.py, kept by tests/passes/training/test_documentation.py -->\n"
END = "<!-- end of operators -->\n"
PARAMETERS_BEGIN = BEGIN.replace("operators", "parameters", 1)
PARAMETERS_END = END.replace("operators", "parameters", 1)
FAMILIES = {
    "element by element": ELEMENTWISE,
    "products": LINEAR,
    "pooling": POOLING,
    "normalisation, softmax, loss": NORMALIZATION,
    "reductions": REDUCTION,
    "moving and copying": MOVEMENT,
}


def operators_of_the_opset():
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    return {n for n in names if onnx.defs.has(n, OPSET, "") and not onnx.defs.get_schema(n, OPSET, "").deprecated}


def rows():
    groups = {f"**{family}**": set(rules) for family, rules in FAMILIES.items()}
    groups["constant almost everywhere: no gradient passes through"] = set(WITHOUT_GRADIENT)
    groups["no gradient yet"] = operators_of_the_opset() - set(RULES) - WITHOUT_GRADIENT
    yield "| | operators |\n| --- | --- |\n"
    for name, operators in groups.items():
        yield f"| {name} | {', '.join(sorted(operators))} |\n"


def parameter_rows():
    yield "| operator | operands |\n| --- | --- |\n"
    for operator, places in WEIGHT_OPERANDS.items():
        formals = onnx.defs.get_schema(operator, OPSET, "").inputs
        names = dict.fromkeys(formals[min(place, len(formals) - 1)].name for place in places[: len(formals)])
        yield f"| {operator} | {', '.join(names)} |\n"
    yield f"| the same behind | {', '.join(sorted(PASSING_OPERATORS))} |\n"


def between(begin, end):
    """What the page has between two marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    listed, _, after = rest.partition(end)
    assert before.endswith("\n")
    assert after.startswith("\n")
    return listed


def test_the_page_lists_the_operators():
    assert between(BEGIN, END) == "".join(rows()), "paste this between the marks"


def test_the_page_lists_the_parameters():
    assert between(PARAMETERS_BEGIN, PARAMETERS_END) == "".join(parameter_rows()), "paste this between the marks"


def test_no_rule_is_in_two_families():
    assert sum(map(len, FAMILIES.values())) == len(RULES)
