"""Runs small networks that tests write as prototxt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import pytest

from wootz.frontend.caffe.importer import ImportedNetwork, import_network
from wootz.frontend.caffe.network import Layer, NetState, Phase, read_network
from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.frontend.caffe.weights import Expected, FilledWeights
from wootz.passes.ir.verifier import verify

Outputs = dict[str, np.ndarray]


@dataclass
class GivenWeights:
    """The blobs of each layer by its name; fillers for layers that are not among them."""

    blobs: Mapping[str, Sequence[np.ndarray]]
    fillers: FilledWeights = field(default_factory=lambda: FilledWeights(seed=0))

    @property
    def initialised(self) -> Sequence[str]:
        return self.fillers.initialised

    def stored_sizes(self, layer: Layer) -> list[int]:
        return [b.size for b in self.blobs.get(layer.name, ())]

    def values(self, layer: Layer, expected: Sequence[Expected]) -> list[np.ndarray]:
        if layer.name not in self.blobs:
            return self.fillers.values(layer, expected)
        blobs = self.blobs[layer.name]
        assert len(blobs) == max(e.index for e in expected) + 1
        for e in expected:
            assert blobs[e.index].shape == e.shape, e
        return [np.asarray(blobs[e.index], np.float32) for e in expected]


def import_text(
    text: str, blobs: Mapping[str, Sequence[np.ndarray]] | None = None, phase: str = "TEST", **shapes: Sequence[int]
) -> ImportedNetwork:
    """The network written in `text`, checked by ONNX and by the IR's verifier."""
    network = read_network(parse_prototxt(text, "net.prototxt"))
    result = import_network(network, GivenWeights(blobs or {}), NetState(Phase[phase]), shapes)
    onnx.checker.check_model(result.model.to_proto(), full_check=True)
    verify(result.model)
    return result


def run_model(result: ImportedNetwork, feeds: Mapping[str, np.ndarray]) -> Outputs:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    content = result.model.to_proto().SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def load() -> Callable[..., ImportedNetwork]:
    return import_text


@pytest.fixture
def run() -> Callable[..., Outputs]:
    return run_model


@pytest.fixture
def run_layer() -> Callable[..., np.ndarray | list[np.ndarray]]:
    """`run_layer(layer, inputs, blobs)`: the tops of one layer called `layer`, its bottoms called `a`, `b`, …"""

    def apply(
        body: str, inputs: np.ndarray | Sequence[np.ndarray], blobs: Sequence[np.ndarray] = (), tops: int = 1
    ) -> np.ndarray | list[np.ndarray]:
        arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        names = "abcdefgh"[: len(arrays)]
        head = "".join(
            f'input: "{name}" input_shape {{ {" ".join(f"dim: {d}" for d in array.shape)} }} '
            for name, array in zip(names, arrays, strict=True)
        )
        bottoms = " ".join(f'bottom: "{name}"' for name in names)
        top_names = [f"top{i}" for i in range(tops)]
        written = " ".join(f'top: "{t}"' for t in top_names)
        text = f'{head} layer {{ name: "layer" {bottoms} {written} {body} }}'
        result = import_text(text, {"layer": blobs} if blobs else {})
        outputs = run_model(result, {n: a for n, a in zip(names, arrays, strict=True) if _is_input(result, n)})
        for top in top_names:
            shape = [d if isinstance(d, int) else -1 for d in result.blobs[top]]
            assert all(a in (b, -1) for a, b in zip(shape, outputs[top].shape, strict=True)), result.blobs[top]
        found = [outputs[t] for t in top_names]
        return found[0] if tops == 1 else found

    return apply


def _is_input(result: ImportedNetwork, name: str) -> bool:
    return any(t.name == name for t in result.model.graph.inputs)
