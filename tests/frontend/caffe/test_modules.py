from __future__ import annotations

import pytest

from wootz.passes.errors import InputError
from wootz.passes.ir.model import Module

LAYER = 'layer {{ name: "{0}" type: "{1}" bottom: {2} top: "{3}" module: "{4}" }} '


def network(*layers: tuple[str, str, str, str, str]) -> str:
    text = 'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3 '
    for name, kind, bottoms, top, module in layers:
        written = " bottom: ".join(f'"{b}"' for b in bottoms.split())
        text += LAYER.format(name, kind, written, top, module)
    return text


def test_modules_from_marks(load) -> None:
    modules = load(
        network(
            ("stem", "ReLU", "x", "stem", ""),
            ("a1", "TanH", "stem", "a1", "A"),
            ("a2", "ReLU", "stem", "a2", "A"),
            ("sum", "Eltwise", "a1 a2", "a", "A"),
            ("relu", "ReLU", "a", "a", "A"),
            ("b", "TanH", "a", "b", "B"),
            ("drop", "Dropout", "b", "b", "B"),
            ("prob", "Softmax", "b", "prob", ""),
        )
    ).model.modules
    assert modules == (Module("A", "stem", "a"), Module("B", "a", "b"))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [("s", "ReLU", "x", "s", ""), ("t", "TanH", "x", "t", ""), ("m", "Eltwise", "s t", "m", "M")],
            "layer 'm' (Eltwise): module 'M' has 2 entry tensors (s, t) where it has to have one",
        ),
        (
            [("m", "ReLU", "x", "m", "M"), ("n", "TanH", "m", "n", "M"), ("o", "Eltwise", "m n", "o", "")],
            "layer 'm' (ReLU): module 'M' has 2 exit tensors (m, n) where it has to have one",
        ),
    ],
)
def test_a_module_has_one_entry_and_one_exit(load, layers, message) -> None:
    with pytest.raises(InputError) as error:
        load(network(*layers))
    assert message in str(error.value)
