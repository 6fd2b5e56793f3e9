from __future__ import annotations

import re
from dataclasses import is_dataclass
from pathlib import Path

from wootz.frontend.caffe.layers.table import KNOWN_FIELDS, LAYERS, is_for_training_only
from wootz.frontend.caffe.network import Phase

DOCUMENT = Path(__file__).parents[3] / "docs" / "caffe-layers.md"


def test_every_layer_is_documented() -> None:
    rows = re.findall(r"^\| ([A-Z][\w, ]*) \|", DOCUMENT.read_text(), re.MULTILINE)
    documented = [name.strip() for row in rows for name in row.split(",")]
    assert sorted(documented) == sorted([*LAYERS, "Silence"])


def test_every_layer_has_its_fields() -> None:
    for name, kind in LAYERS.items():
        assert (kind.schema is None) == (not kind.fields), name
        assert kind.schema is None or is_dataclass(kind.schema), name
        assert set(kind.fields) <= KNOWN_FIELDS


def test_losses_stay_while_training_only() -> None:
    for name in ("SoftmaxWithLoss", "MultiBoxLoss"):
        assert is_for_training_only(name, Phase.TEST)
        assert not is_for_training_only(name, Phase.TRAIN)
    assert is_for_training_only("Accuracy", Phase.TRAIN)
    assert not is_for_training_only("Convolution", Phase.TEST)
