"""Networks in 8-bit integers: scales beside their definition, results beside those of float32, in ONNX Runtime."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Model, constants, producer
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.transforms.int8 import Int8, quantizable
from wootz.runtime.delivery.quantization import quantize, signal_to_noise
from wootz.runtime.session import ExactSession, evaluate

NETWORK = """<ir_version: 8, opset_import: ["": 18]>
g (float[N,2,6,6] x) => (float[N,3] y) {
    [first] h = Conv<pads = [1,1,1,1]>(x, a, b) i = Relu(h) [second] j = Conv(i, c) k = Add(j, i)
    m = GlobalAveragePool(k) n = Flatten(m) [scores] o = Gemm<transB = 1>(n, d, e) y = Softmax(o) }"""
SHAPES = {"a": (8, 2, 3, 3), "b": (8,), "c": (8, 8, 1, 1), "d": (3, 8), "e": (3,)}
IMAGES = np.random.default_rng(1).normal(size=(64, 2, 6, 6)).astype(np.float32)


def network(**weights: np.ndarray) -> Model:
    proto, generator = onnx.parser.parse_model(NETWORK), np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = generator.normal(size=shape, scale=0.5).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights.get(name, values), name))
    return Model.from_proto(proto)


def int8(model: Model, **options: object) -> Model:
    return Int8(sample={"x": IMAGES}, quantizer=quantize, **options).apply(model).model


def run(model: Model, folder: Path) -> np.ndarray:
    """The scores of the file that is written, for the sample, as the operators are defined: ONNX Runtime's own kernels
    for 8 bits saturate where a processor has no VNNI."""
    verify(model)
    save(model, folder / "net.onnx")
    (scores,) = ExactSession(load(folder / "net.onnx")).run({"x": IMAGES}).values()
    return scores


def test_weights_have_a_scale_for_each_output_channel(tmp_path):
    model = network()
    quantized = int8(model)
    given = constants(model.graph)
    for node in quantized.graph.nodes:
        if node.name not in quantizable(model):
            continue
        image, weight = (producer(t) for t in node.inputs[:2])
        assert (image.op, weight.op) == ("DequantizeLinear", "DequantizeLinear")
        assert producer(image.inputs[0]).op == "QuantizeLinear"
        values = given[{"first": "a", "second": "c", "scores": "d"}[node.name]]
        flat = values.reshape(len(values), -1)
        whole, scale, zero = (t.values for t in weight.inputs)
        assert whole.dtype == np.int8
        assert not zero.any()
        np.testing.assert_allclose(scale, np.abs(flat).max(1) / 127, rtol=1e-6)
        np.testing.assert_allclose(whole.reshape(flat.shape), flat / scale[:, None], atol=0.5 + 1e-4)
    expected = run(model, tmp_path)
    error = np.abs(run(quantized, tmp_path) - expected).max()
    assert 0 < error < 0.02
    assert producer(quantized.graph.outputs[0]).op == "Softmax"


def test_what_is_named_stays_in_float32():
    quantized = int8(network(), keep=("second",))
    weights = {n.name: producer(n.inputs[1]) for n in quantized.graph.nodes if n.name in ("first", "second", "scores")}
    assert [name for name, source in weights.items() if source is None] == ["second"]
    np.testing.assert_array_equal(constants(quantized.graph)["c"], constants(network().graph)["c"])


@pytest.mark.parametrize("names", [("", "", ""), ("j", "", "scores"), ("a", "a", "a")])
def test_nodes_need_no_names_of_their_own(names, tmp_path):
    model = network()
    for node, name in zip([n for n in model.graph.nodes if n.name], names, strict=True):
        node.name = name
    quantized = int8(model)
    found = [n.name for n in quantized.graph.nodes]
    assert len(set(found)) == len(found)
    np.testing.assert_array_equal(run(quantized, tmp_path), run(int8(network()), tmp_path))
    whole = [n for n in quantized.graph.nodes if n.op in ("Conv", "Gemm")]
    assert all(producer(t).op == "DequantizeLinear" for node in whole for t in node.inputs)
    kept = int8(model, keep=(whole[1].name,))
    assert [n.name for n in kept.graph.nodes if n.op == "Conv" and producer(n.inputs[1]) is None] == [whole[1].name]


@pytest.mark.parametrize("options", [{"activations": "int8"}, {"weights": "uint8"}, {"calibration": "entropy"}])
def test_other_types_and_calibrations_give_about_the_same(options, tmp_path):
    model = network()
    assert np.abs(run(int8(model, **options), tmp_path) - run(model, tmp_path)).max() < 0.05


def test_a_channel_whose_weights_are_next_to_zero_keeps_its_bias(tmp_path):
    """The bias is in the scale of weights and image: of weights of 1e-12 it would be no 32-bit integer."""
    given = constants(network().graph)
    weights, biases = given["a"].copy(), given["b"].copy()
    weights[3] *= 1e-12
    biases[3] = 3
    model = network(a=weights, b=biases)
    assert np.abs(run(int8(model), tmp_path) - run(model, tmp_path)).max() < 0.02


@pytest.mark.parametrize("name", ["squeezenet.dynamo", "shufflenet_v2.torchscript"])
def test_networks_of_exporters_are_quantised_as_a_whole(exported, name):
    model = run_pipeline(exported(name), parse_pipeline("eliminate-dead,fold-constants,fold-batchnorm")).model
    (image,) = model.graph.inputs
    feeds = {image.name: np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)}
    result = Int8(sample=feeds, quantizer=quantize).apply(model)
    assert result.statistics == {"quantised": len(quantizable(model)), "float32": 0}
    (expected,), (found,) = (list(evaluate(m, feeds).values()) for m in (model, result.model))
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_a_channel_that_is_lost_is_seen_beside_large_ones():
    """Half of the channels that the first convolution gives are a thousandth of the others."""
    weights = constants(network().graph)
    factors = np.where(np.arange(8) < 4, 1e-3, 1).astype(np.float32)
    model = network(a=weights["a"] * factors.reshape(-1, 1, 1, 1), b=weights["b"] * factors)
    before, after = (signal_to_noise(m, int8(m), {"x": IMAGES[:16]}) for m in (network(), model))
    lost = {name: before[name] - after[name] for name in before}
    assert min(lost["first"], lost["second"]) > 10
    assert abs(lost["scores"]) < 5


def test_the_same_command_gives_the_same_bytes(tmp_path):
    """Whatever order Python's sets have."""
    save(network(), tmp_path / "net.onnx")
    np.savez(tmp_path / "sample.npz", x=IMAGES)
    digests = set()
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.onnx"
        tool = Path(sys.executable).parent / "wootz-opt"
        command = [tool, tmp_path / "net.onnx", "--pass=int8", f"--data={tmp_path / 'sample.npz'}", "-o", file]
        done = subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1
    assert quantizable(load(tmp_path / "1.onnx")) == ()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep": ("third",)}, "keep names 'third', and there is no such node"),
        ({"keep": ("first", "second", "scores")}, "keep names all nodes that could be quantised"),
        ({"sample": {"z": IMAGES}}, r"the data has no array 'x' \(it has z\)"),
        ({"sample": None}, r"it needs a sample of the network's inputs, data=FILE.npz or --data"),
        ({"quantizer": None}, "it needs something that quantises: none was given"),
    ],
)
def test_what_can_not_be_quantised_is_refused(options, reason):
    with pytest.raises(WootzError, match=f"^int8: {reason}$"):
        Int8(**{"sample": {"x": IMAGES}, "quantizer": quantize, **options}).apply(network())
