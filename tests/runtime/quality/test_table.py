"""The table of qualities: what packages add, and what a run is judged by without a word."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from wootz.frontend.objective import parse_objective
from wootz.passes.errors import WootzError
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.metrics import Metric
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.quality import table
from wootz.runtime.quality.quality import ACCURACY, AGREEMENT, OUTPUT_ERROR, Quality

CLASSIFIER = parse_text('<ir_version: 8, opset_import: ["" : 18]> g (float[N,2] x) => (float[N,2] y) { y = Relu (x) }')
OTHER = parse_text('<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,2] x) => (float[N,2,2] y) { y = Relu (x) }')
IMAGES = np.zeros((4, 1, 2, 2), np.uint8)
LABELS = np.array([0, 1, 0, 1])

LARGEST = Quality(Metric("Largest", needs_training=True), AGREEMENT.begin, "largest", compares=True)
TWICE = Quality(Metric("Accuracy", needs_training=True), AGREEMENT.begin, "again")


def data(labels):
    split = Split(IMAGES, labels)
    return Dataset(("a", "b") if labels is not None else (), split, split, None)


@pytest.fixture
def packages(monkeypatch):
    """Entry points by name."""

    def install(**points: str) -> None:
        found = [EntryPoint(name, value, table.GROUP) for name, value in points.items()]
        monkeypatch.setattr(table, "entry_points", lambda group: found if group == table.GROUP else [])
        table.qualities.cache_clear()

    yield install
    monkeypatch.undo()
    table.qualities.cache_clear()


def test_a_package_adds_a_quality_that_objectives_name(packages, monkeypatch):
    monkeypatch.setattr(np, "wootz_quality", LARGEST, raising=False)
    packages(largest="numpy:wootz_quality")
    objective = parse_objective("min ModelSize constraint Largest < 0.1", metrics=table.metrics())
    assert table.judged_by(objective, data(None), CLASSIFIER) is LARGEST


def test_what_is_no_quality_is_refused(packages, monkeypatch):
    packages(wrong="numpy:array")
    with pytest.raises(WootzError, match=r"entry point wrong = numpy:array of wootz.metrics is no Quality"):
        table.qualities()
    packages(missing="numpy:not_there")
    with pytest.raises(WootzError, match=r"missing = numpy:not_there of wootz.metrics can't be loaded: AttributeError"):
        table.qualities()
    monkeypatch.setattr(np, "wootz_quality", TWICE, raising=False)
    packages(twice="numpy:wootz_quality")
    with pytest.raises(WootzError, match="there is a metric Accuracy already"):
        table.qualities()


@pytest.mark.parametrize(
    ("network", "labels", "objective", "quality"),
    [
        (CLASSIFIER, LABELS, "", ACCURACY),
        (CLASSIFIER, None, "", AGREEMENT),
        (OTHER, None, "", OUTPUT_ERROR),
        (CLASSIFIER, LABELS, "min FLOPs", ACCURACY),
        (CLASSIFIER, LABELS, "max Agreement", AGREEMENT),
        (CLASSIFIER, LABELS, "min OutputError", OUTPUT_ERROR),
    ],
)
def test_data_and_outputs_say_what_counts_unless_the_objective_does(network, labels, objective, quality):
    stated = parse_objective(objective) if objective else None
    assert table.judged_by(stated, data(labels), network) is quality


@pytest.mark.parametrize("shape", ["N,1", "N"])
def test_a_network_that_gives_one_number_tells_no_classes_apart(shape):
    network = parse_text(
        f'<ir_version: 8, opset_import: ["" : 18]> g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}'
    )
    assert table.judged_by(None, data(None), network) is OUTPUT_ERROR
