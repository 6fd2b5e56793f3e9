"""Batches that a graph makes itself are those that the runtime makes, and its losses are recorded in their places."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.errors import PassError, WootzError
from wootz.passes.ir.model import Model
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.training.embed_batches import EmbedBatches
from wootz.passes.training.interface import EmbeddedBatches, TrainingInterface
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.fold_constants import FoldConstants
from wootz.runtime.batches import training_batch
from wootz.runtime.data.dataset import Split
from wootz.runtime.schedule import Choice, training_schedule
from wootz.runtime.session import evaluate


def load_sibling(name: str):
    specification = importlib.util.spec_from_file_location(f"embed_batches_{name}", Path(__file__).with_name(name))
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


CUDA_KERNELS = load_sibling("test_cuda_kernels.py")


def classifier(channels: int, height: int, width: int) -> Model:
    ones = ", ".join("1" * channels)
    return parse_text(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[N,{channels},{height},{width}] x) => (float[N,{channels}] y) <float[{channels}] w = {{{ones}}}> {{
          [pool] p = GlobalAveragePool(x)
          [flat] f = Flatten(p)
          [scale] y = Mul(f, w)
        }}"""
    )


def feeds(graph: Model, split: Split, schedule: list[Choice], position: int) -> dict[str, np.ndarray]:
    """What a program binds: the whole split and the schedule of all runs."""
    interface, batches = TrainingInterface.of(graph), EmbeddedBatches.of(graph)
    values = {
        interface.data: split.images,
        interface.labels: split.labels,
        interface.learning_rate: np.arange(len(schedule), dtype=np.float32),
        batches.order: [c.images for c in schedule],
        batches.tops: [c.tops for c in schedule],
        batches.lefts: [c.lefts for c in schedule],
        batches.heights: [c.heights for c in schedule],
        batches.widths: [c.widths for c in schedule],
        batches.flips: [c.flips for c in schedule],
    }
    state = {t.name: t.values for t in graph.graph.inputs if hasattr(t, "values")}
    arrays = {name: np.asarray(value) for name, value in values.items() if name is not None}
    scheduled = {n: a.astype(np.int64) if a.dtype == bool else a for n, a in arrays.items()}
    return {**state, **scheduled, batches.position: np.asarray(position)}


transforms = st.builds(
    InputTransform,
    mean=st.sampled_from([(0.0,), (104.3,), (104.1, 116.7, 122.9)]),
    scale=st.sampled_from([(1.0,), (0.017,), (1 / 255, 0.3, 7.0)]),
    crop_size=st.sampled_from([0, 3]),
    mirror=st.booleans(),
    least_area=st.sampled_from([1.0, 0.2]),
    channel_order=st.sampled_from(["BGR", "RGB"]),
)


@settings(max_examples=30)
@given(transforms, st.sampled_from([np.uint8, np.float32]), st.integers(3, 5), st.integers(3, 6), st.integers(0, 99))
def test_batches_equal_those_of_the_runtime(transform, dtype, height, width, seed):
    if transform.least_area < 1:
        dtype = np.uint8
    generator = np.random.default_rng(seed)
    split = Split(generator.integers(0, 256, (7, 3, height, width)).astype(dtype), generator.integers(0, 3, 7))
    shape = (transform.crop_size,) * 2 if transform.crop_size else (height, width)
    network = classifier(3, *shape)
    network = replace(network, metadata={TRANSFORM_KEY: transform.to_json()})
    window, batch_size = 3, 4
    trained = build_training_graph(network, Solver())
    embedding = EmbedBatches(
        batch_size=batch_size, window=window, height=height, width=width, pixels=np.dtype(dtype).name
    )
    graph = embedding.apply(trained).model
    verify(graph)
    tensors = graph.graph.tensors()
    graph.graph.outputs += [tensors[name] for name in ("x", "labels", "learning_rate")]
    schedule = list(training_schedule(7, (height, width), transform, batch_size, window, seed))
    for position, choice in enumerate(schedule):
        before = np.full(window, -1, np.float32)
        found = evaluate(graph, feeds(graph, split, schedule, position) | {"loss.recorded": before})
        expected = training_batch(split, transform, choice)
        np.testing.assert_array_equal(found["x"], expected.data)
        np.testing.assert_array_equal(found["labels"], expected.labels)
        assert found["learning_rate"] == position
        assert found["position.new"] == position + 1
        before[position] = found["loss"]
        np.testing.assert_array_equal(found["loss.recorded.new"], before)


@pytest.mark.parametrize("pixels", ["uint8", "float32"])
def test_batches_stay_on_a_gpu(pixels):
    """Every node has a kernel for CUDA, and reads nothing that the host has to compute."""
    least_area = 0.5 if pixels == "uint8" else 1.0
    transform = InputTransform(mean=(1.0,), scale=(0.5,), crop_size=2, mirror=True, least_area=least_area)
    network = replace(classifier(3, 2, 2), metadata={TRANSFORM_KEY: transform.to_json()})
    trained = build_training_graph(network, Solver(momentum=0.9, iter_size=2), target="onnx-cuda")
    embedded = EmbedBatches(height=4, width=5, pixels=pixels).apply(trained).model
    graph = FoldConstants().apply(embedded).model.graph
    annotate_shapes(graph)
    assert not CUDA_KERNELS.without_kernel(graph)
    assert not {"Shape", "Size"} & {node.op for node in graph.nodes}


def test_a_loss_that_is_not_finite_spoils_no_other_record():
    graph = EmbedBatches(batch_size=2, window=3).apply(build_training_graph(classifier(3, 2, 2), Solver())).model
    images = np.zeros((4, 3, 2, 2), np.uint8)
    schedule = [Choice(np.array([0, 1]), None, None, None)] * 3
    given = feeds(graph, Split(images, np.zeros(4, np.int64)), schedule, 1)
    given["w"] = np.full(3, np.nan, np.float32)
    given["loss.recorded"] = np.array([5, 6, 7], np.float32)
    np.testing.assert_array_equal(evaluate(graph, given)["loss.recorded.new"], [5, np.nan, 7])


@pytest.mark.parametrize(
    ("options", "transform", "reason"),
    [
        ({"batch_size": 0}, InputTransform(), "batch-size and window are at least 1, not 0 and 128"),
        ({"height": 3}, InputTransform(), "the images are 3x2, the network takes 2x2, and there is no crop_size"),
        ({"pixels": "float32"}, InputTransform(least_area=0.5), "crops are resized exactly of pixels in uint8 alone"),
        ({}, InputTransform(crop_size=1), "crops of 1x1 from images of 2x2 for a network of 2x2"),
    ],
)
def test_refusals(options, transform, reason):
    network = replace(classifier(3, 2, 2), metadata={TRANSFORM_KEY: transform.to_json()})
    graph = build_training_graph(network, Solver())
    with pytest.raises(PassError, match=re.escape(reason)):
        EmbedBatches(**options).apply(graph)


def test_it_is_done_once():
    graph = build_training_graph(classifier(3, 2, 2), Solver())
    with pytest.raises(WootzError, match="embed-batches has not been run"):
        EmbeddedBatches.of(graph)
    with pytest.raises(PassError, match="the graph makes its batches already"):
        EmbedBatches().apply(EmbedBatches().apply(graph).model)
