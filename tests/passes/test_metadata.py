"""Metadata is read by the type that belongs there; anything else is refused with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.metadata import read_metadata
from wootz.passes.training.interface import TrainingInterface


@dataclass(frozen=True)
class Row:
    name: str
    kind: Literal["a", "b"] = "a"
    size: float = 1.0
    note: str | None = None


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('[{"name": "x"}, {"name": "y", "kind": "b", "size": 2, "note": "z"}]', tuple[Row, ...], None),
        ('{"a": [1, 2.5]}', dict[str, tuple[float, float]], {"a": (1.0, 2.5)}),
        ("[]", tuple[int, ...], ()),
        ("true", bool, True),
        ("null", int | None, None),
    ],
)
def test_what_belongs_there_is_read(text: str, kind: object, value: object) -> None:
    expected = (Row("x"), Row("y", "b", 2.0, "z")) if kind == tuple[Row, ...] else value
    assert read_metadata({"key": text}, "key", kind) == expected
    assert read_metadata({}, "key", kind, text) == expected


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("[", tuple[int, ...], "Expecting value"),
        ("[1, true]", tuple[int, ...], "at [1] there is true"),
        ('{"a": [1]}', dict[str, tuple[float, float]], "at ['a'] there is [1]"),
        ('[{"kind": "a"}]', tuple[Row, ...], "at [0] the field 'name' is missing"),
        ('[{"name": "x", "nmae": 1}]', tuple[Row, ...], "at [0] there is a field 'nmae'"),
        ('{"name": "x", "kind": "c"}', Row, 'at .kind there is "c"'),
        ('{"name": "x", "note": 1}', Row, "at .note there is 1"),
        ("[" * 100_000, tuple[int, ...], ""),
        ("", Row, "Expecting value"),
    ],
)
def test_anything_else_is_refused(text: str, kind: object, reason: str) -> None:
    with pytest.raises(WootzError) as refusal:
        read_metadata({"key": text}, "key", kind)
    assert str(refusal.value).startswith("the metadata entry 'key' is not what belongs there: ")
    assert reason in str(refusal.value)


def test_a_training_graph_has_what_its_metadata_names() -> None:
    interface = TrainingInterface("x", None, "rate", ("y",), ())
    model = parse_text('<ir_version: 8, opset_import: ["" : 18]> g (float[2] x, float rate) => (float y) { y = Op(x) }')
    named = {"wootz.training": interface.to_json()}
    object.__setattr__(model, "metadata", named)
    assert TrainingInterface.of(model) == interface
    named["wootz.training"] = interface.to_json().replace('"rate"', '"speed"')
    with pytest.raises(WootzError, match=r"'wootz.training' names 'speed', which the graph doesn't have"):
        TrainingInterface.of(model)
