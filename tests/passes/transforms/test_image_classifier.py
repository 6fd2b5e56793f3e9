"""Networks as exporters leave them, and the same in the form that is trained: each image has the same scores."""

from dataclasses import replace

import numpy as np
import onnx.reference
import pytest

from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Module
from wootz.passes.ir.text import parse_text
from wootz.passes.ir.verifier import verify
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.passes.transforms.image_classifier import as_image_classifier
from wootz.passes.transforms.set_interface import interface_of
from wootz.runtime.session import evaluate

HEADER = '<ir_version: 8, opset_import: ["" : 18]>'
LAYERS = """
    h = Conv<pads = [1,1,1,1]>(image, w)
    r = Relu(h)
    p = GlobalAveragePool(r)
"""
NETWORKS = {
    "batch of one": f"""g (float[1,2,6,6] x) => (float[1,4] y) <float[4,2,3,3] w, int64[2] s = {{1,-1}}>
        {{ image = Identity(x) {LAYERS} y = Reshape(p, s) }}""",
    "batch in parts": f"""g (float[1,2,6,6] x) => (float[1,4] y)
        <float[4,2,3,3] w, int64 one = {{1}}, int64[1] rest = {{-1}}, int64[1] axis = {{0}}>
        {{ image = Identity(x) {LAYERS} a = Unsqueeze(one, axis) s = Concat<axis = 0>(a, rest) y = Reshape(p, s) }}""",
    "batch of three": f"""g (float[3,2,6,6] x) => (float[3,4] y) <float[4,2,3,3] w, int64[2] s = {{3,4}}>
        {{ image = Identity(x) {LAYERS} y = Reshape<allowzero = 1>(p, s) }}""",
    "channels last": f"""g (float[N,6,6,2] x) => (float[N,4] y) <float[4,2,3,3] w>
        {{ image = Transpose<perm = [0,3,1,2]>(x) {LAYERS} y = Flatten(p) }}""",
    "channels last, read twice": f"""g (float[N,2,2,2] x) => (float[N,4] y) <float[4,2,3,3] w>
        {{ other = Transpose<perm = [0,3,1,2]>(x) image = Add(other, x) {LAYERS} y = Flatten(p) }}""",
    "channels last, normalised": f"""g (uint8[2,6,6,2] x) => (float[2,4] y)
        <float[4,2,3,3] w, float[1,1,2] m = {{1,2}}, float[2] s = {{3,4}}, float o = {{0.5}}>
        {{ f = Cast<to = 1>(x) a = Sub(m, f) b = Div(a, s) c = Add(b, o)
           image = Transpose<perm = [0,3,1,2]>(c) {LAYERS} y = Flatten(p) }}""",
    "integers": f"""g (uint8[N,2,6,6] x) => (float[N,4] y) <float[4,2,3,3] w>
        {{ image = Cast<to = 1>(x) {LAYERS} y = Flatten(p) }}""",
    "integers, channels last": f"""g (uint8[N,6,6,2] x) => (float[N,4] y) <float[4,2,3,3] w>
        {{ t = Transpose<perm = [0,3,1,2]>(x) image = Cast<to = 1>(t) {LAYERS} y = Flatten(p) }}""",
    "float64": f"""g (double[N,2,6,6] x) => (double[N,4] y) <double[4,2,3,3] w>
        {{ image = Identity(x) {LAYERS} y = Flatten(p) }}""",
    "float16": f"""g (float16[N,2,6,6] x) => (float16[N,4] y) <float16[4,2,3,3] w>
        {{ image = Identity(x) {LAYERS} y = Flatten(p) }}""",
    "float16 inside": f"""g (float[N,2,6,6] x) => (float[N,4] y) <float16[4,2,3,3] w>
        {{ image = Cast<to = 10>(x) {LAYERS} f = Flatten(p) y = Cast<to = 1>(f) }}""",
    "a plane of scores": f"""g (float[N,2,6,6] x) => (float[N,4,1,1] y) <float[4,2,3,3] w>
        {{ image = Identity(x) {LAYERS} y = Identity(p) }}""",
    "open size": f"""g (float[N,2,H,W] x) => (float[N,4] y) <float[4,2,3,3] w>
        {{ image = Identity(x) {LAYERS} y = Flatten(p) }}""",
    "two outputs": f"""g (float[N,2,6,6] x) => (float[N,4,1,1] p, float[N,4] y) <float[4,2,3,3] w>
        {{ image = Identity(x) {LAYERS} y = Flatten(p) }}""",
}


def network(name):
    zeros = "{" + ",".join(["0"] * 72) + "}"
    model = parse_text(f"{HEADER} {NETWORKS[name]}".replace("[4,2,3,3] w", f"[4,2,3,3] w = {zeros}"))
    weight = model.graph.tensors()["w"]
    weight.values = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(weight.values.dtype)
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_each_image_has_the_scores_that_it_had(name, tmp_path):
    original = network(name)
    (source,) = original.graph.inputs
    changed, notes = as_image_classifier(original, "y", (6, 6) if name == "open size" else ())
    verify(changed)
    save(changed, tmp_path / "net.onnx")
    changed = load(tmp_path / "net.onnx")
    (image,) = changed.graph.inputs
    assert (image.dtype, isinstance(image.shape[0], str), len(changed.graph.outputs)) == (np.float32, True, 1)
    batch = source.shape[0] if isinstance(source.shape[0], int) else 3
    shape = [batch, *(6 if isinstance(extent, str) else extent for extent in source.shape[1:])]
    pixels = np.random.default_rng(1).integers(0, 9, shape)
    reference = onnx.reference.ReferenceEvaluator(original.to_proto())  # ONNX Runtime has no Conv in float64
    (before,) = reference.run(["y"], {source.name: pixels.astype(source.dtype)})
    if list(image.shape[1:]) != shape[1:]:
        pixels = pixels.transpose(0, 3, 1, 2)
    together = evaluate(changed, {image.name: np.concatenate([pixels, pixels]).astype(np.float32)})["y"]
    assert together.shape == (2 * batch, 4)
    tolerance = 5e-2 if "float16" in name else 1e-5
    np.testing.assert_allclose(together[:batch], before.reshape(batch, 4), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(together[:batch], together[batch:])
    assert (not notes) == (name in ("channels last, read twice",))


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "channels last, read twice"])
def test_the_way_back_takes_and_gives_what_the_network_did(name, tmp_path):
    """`set-interface` after `image-classifier`: names, types and shapes, and the scores of the same images."""
    original = network(name)
    original.graph.outputs = [t for t in original.graph.outputs if t.name == "y"]
    classifier, _ = as_image_classifier(original, "y", (6, 6) if name == "open size" else ())
    back = interface_of(original, classifier).apply(classifier).model
    verify(back)
    save(back, tmp_path / "net.onnx")
    back = load(tmp_path / "net.onnx")
    for one, other in zip(
        (*original.graph.inputs, *original.graph.outputs), (*back.graph.inputs, *back.graph.outputs), strict=True
    ):
        assert (one.name, np.dtype(one.dtype), list(one.shape)) == (
            other.name,
            np.dtype(other.dtype),
            list(other.shape),
        )
    (source,) = original.graph.inputs
    for extent in (6, 9) if name == "open size" else (6,):
        shape = [n if isinstance(n, int) else 3 if i == 0 else extent for i, n in enumerate(source.shape)]
        pixels = np.random.default_rng(1).integers(0, 9, shape).astype(source.dtype)
        (before,) = onnx.reference.ReferenceEvaluator(original.to_proto()).run(["y"], {source.name: pixels})
        after = evaluate(back, {source.name: pixels})["y"]
        tolerance = 5e-2 if "float16" in name else 1e-5
        np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)


def at_ends(model, feeds):
    """What each module begins and ends with, by ONNX's own evaluator: it has a Conv in float64."""
    shown = model.copy()
    tensors = shown.graph.tensors()
    ends = [name for module in model.modules for name in (module.entry, module.exit)]
    shown.graph.outputs = [tensors[name] for name in dict.fromkeys(ends)]
    shown = replace(shown, modules=())
    values = onnx.reference.ReferenceEvaluator(shown.to_proto()).run(None, feeds)
    found = dict(zip(dict.fromkeys(ends), values, strict=True))
    return [found[name].astype(np.float32).ravel() for name in ends]


def with_channels_first(pixels, source):
    return pixels if source.shape[1] == 2 else pixels.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("embedded", [False, True], ids=["", "normalisation embedded"])
@pytest.mark.parametrize("entry", ["image", "x"])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "channels last, read twice"])
def test_modules_begin_and_end_with_the_same_values_there_and_back(name, entry, embedded, tmp_path):
    """Whatever tensors are renamed, cast or taken out on the way; `x` is the images in the form that is trained."""
    original = network(name)
    modules = (Module("features", "image", "r"), Module("head", "r", "y"))
    classifier, _ = as_image_classifier(replace(original, modules=modules), "y", (6, 6) if name == "open size" else ())
    (source,) = original.graph.inputs
    shape = [n if isinstance(n, int) else 3 if i == 0 else 6 for i, n in enumerate(source.shape)]
    pixels = np.random.default_rng(1).integers(0, 9, shape)
    trained = {"x": with_channels_first(pixels, source).astype(np.float32)}
    tolerance = {"rtol": 5e-2, "atol": 5e-2} if "float16" in name else {"rtol": 1e-5, "atol": 1e-5}
    given = {"x": pixels.astype(source.dtype)}
    for one, other in zip(
        at_ends(replace(original, modules=modules), given), at_ends(classifier, trained), strict=True
    ):
        np.testing.assert_allclose(other, one, **tolerance)
    features, head = classifier.modules
    classifier = replace(classifier, modules=(replace(features, entry="x") if entry == "x" else features, head))
    there = at_ends(classifier, trained)
    if embedded:
        shifted = InputTransform(mean=(3.0,), channel_order="RGB")
        classifier = replace(classifier, metadata={TRANSFORM_KEY: shifted.to_json()})
        classifier, given = EmbedNormalization().apply(classifier).model, {"x": (pixels + 3).astype(source.dtype)}
    back = interface_of(original, as_image_classifier(original, "y", (6, 6))[0]).apply(classifier).model
    save(back, tmp_path / "net.onnx")
    back = load(tmp_path / "net.onnx")
    verify(back)
    assert [m.name for m in back.modules] == ["features", "head"]
    for one, other in zip(there, at_ends(back, given), strict=True):
        np.testing.assert_allclose(other, one, **tolerance)


def test_what_is_in_the_form_already_stays(tmp_path):
    model = network("two outputs")
    once, _ = as_image_classifier(model, "y")
    twice, notes = as_image_classifier(once)
    assert twice is once
    assert notes == ()
    assert len(model.graph.outputs) == 2


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("two outputs", {}, r"has 2 outputs, p \[N, 4, 1, 1\], y \[N, 4\]: choose the one .* by --scores NAME"),
        ("open size", {}, r"x \[N, 2, H, W\] leaves the size of images open: give it by --size HEIGHTxWIDTH"),
        ("open size", {"size": (6,)}, "a size is a height and a width"),
        ("batch of one", {"size": (7, 7)}, "takes images of 6x6, not 7x7"),
    ],
)
def test_refusals(name, options, reason):
    with pytest.raises(WootzError, match=reason):
        as_image_classifier(network(name), **options)
