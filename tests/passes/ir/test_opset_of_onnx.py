"""ONNX's own examples of every operator, brought to other opsets: right, or refused."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest

from wootz.passes.ir.model import NEWEST_OPSET, OLDEST_OPSET
from wootz.passes.ir.opset import convert_to_opset, standard_opset
from wootz.passes.ir.versions.rewriting import Unconvertible

RANDOM = ("Bernoulli", "Dropout", "RandomUniformLike")
NEWEST_OF_RUNTIME = 21
ABSOLUTE, RELATIVE = 1e-5, 1e-3


@pytest.fixture(scope="module")
def examples() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [e for e in collect_testcases(None) if _is_of_interest(e)]


def _is_of_interest(example: Any) -> bool:
    """ReverseSequence of a sequence of no length reads memory that ONNX Runtime 1.19 doesn't set."""
    random = any(node.op_type in RANDOM for node in example.model.graph.node)
    opset = standard_opset(example.model.opset_import, 0)
    return OLDEST_OPSET <= opset <= NEWEST_OPSET and not random and example.name != "test_reversesequence_batch"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("opset", "constant", "fewest"), [(18, False, 1300), (18, True, 1300), (21, False, 1400), (11, True, 900)]
)
def test_an_example_is_right_or_refused(examples, opset, constant, fewest):
    """With `constant`, all operands but the first are constants, which older forms have as attributes."""
    counts: Counter[str] = Counter()
    wrong = []
    for example in examples:
        model, feeds, expected = _prepared(example, constant)
        verdict = _verdict(model, feeds, expected, opset)
        counts[verdict] += 1
        if verdict == "wrong":
            wrong.append(example.name)
    assert wrong == []
    assert counts["right"] >= fewest


def _prepared(example: Any, constant: bool) -> tuple[onnx.ModelProto, dict[str, Any], list[Any]]:
    model = onnx.ModelProto()
    model.CopyFrom(example.model)
    inputs, outputs = example.data_sets[0]
    feeds = {info.name: _array(value) for info, value in zip(model.graph.input, inputs, strict=False)}
    if constant:
        for info in list(model.graph.input)[1:]:
            if isinstance(feeds.get(info.name), np.ndarray):
                model.graph.initializer.append(onnx.numpy_helper.from_array(feeds.pop(info.name), info.name))
                model.graph.input.remove(info)
    return model, feeds, outputs


def _verdict(model: onnx.ModelProto, feeds: dict[str, Any], expected: list[Any], opset: int) -> str:
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    try:
        convert_to_opset(converted, opset)
    except Unconvertible:
        return "refused"
    found = _run(converted, feeds)
    if found is None:
        return "not run"
    if _same(found, expected):
        return "right"
    original = onnx.ModelProto()  # ONNX Runtime may be at fault: then it is with the original, too
    original.CopyFrom(model)
    for imported in original.opset_import:
        if imported.domain == "":
            imported.version = min(imported.version, NEWEST_OF_RUNTIME)
    runtime = _run(original, feeds)
    return "fault of the runtime" if runtime is not None and _same(found, runtime) else "wrong"


def _run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any] | None:
    """By ONNX Runtime where it can, else by ONNX's reference implementation; None where neither can."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    runnable = onnx.ModelProto()
    runnable.CopyFrom(model)
    runnable.ir_version = min(model.ir_version, 10)
    try:
        session = onnxruntime.InferenceSession(
            runnable.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, feeds)
    except Exception:  # whatever it is, another implementation is asked
        try:
            return onnx.reference.ReferenceEvaluator(model).run(None, feeds)
        except Exception:
            return None


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _same(found: Any, expected: Any) -> bool:
    if isinstance(found, list) or isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same, found, expected))
    if found is None or expected is None:
        return found is expected
    a, b = np.asarray(_array(found)), np.asarray(_array(expected))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fV":  # V: the small floats of ml_dtypes
        return bool((a == b).all())
    return np.allclose(a.astype(np.float64), b.astype(np.float64), RELATIVE, ABSOLUTE, equal_nan=True)
