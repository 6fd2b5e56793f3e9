"""Which constants are trained, which an exporter has made up, and which would silently stay as they are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from wootz.passes.errors import PassError
from wootz.passes.ir.text import parse_text
from wootz.passes.training.attach_loss import AttachLoss
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.legalize import Legalize
from wootz.passes.training.merged_parameters import separate_merged_parameters
from wootz.passes.training.mixed_precision import MixedPrecision
from wootz.passes.training.parameters import placeholder_notes

ONES, ZEROS = np.ones(4, np.float32), np.zeros(4, np.float32)


def gradients(model, **options):
    """The parameters that get a gradient, and the pass's notes."""
    result = BuildGradients(**options).apply(AttachLoss(loss="mse").apply(model).model)
    return [t.name.removesuffix(".grad") for t in result.model.graph.outputs if t.name != "loss"], result.notes


UNTRAINED = {
    "recurrent": (
        "g (float[5,2,3] x) => (y) <float[1,12,3] w, float[1,12,4] r, float[1,24] b, float[4,2] fc> {"
        " [rnn] h = GRU<hidden_size=4>(x, w, r, b)  s = Squeeze(h)  y = MatMul(s, fc) }",
        {"w": (1, 12, 3), "r": (1, 12, 4), "b": (1, 24), "fc": (4, 2)},
        "rnn: there is no gradient for w, r, b, which GRU reads: freeze w, r, b",
    ),
    "other domain": (
        "g (float[2,3] x) => (y) <float[3,4] w, float[4,2] fc> {"
        " [fused] h = com.microsoft.FusedMatMul(x, w)  y = MatMul(h, fc) }",
        {"w": (3, 4), "fc": (4, 2)},
        "fused: there is no gradient for w, which com.microsoft.FusedMatMul reads: freeze w",
    ),
    "quantized": (
        "g (float[2,4] x) => (y) <int8[4,4] w, float scale, float[4,2] fc> {"
        " [restore] d = DequantizeLinear(w, scale)  h = MatMul(x, d)  y = MatMul(h, fc) }",
        {"w": np.arange(16, dtype=np.int8).reshape(4, 4), "scale": (), "fc": (4, 2)},
        "restore: there is no gradient for w, which DequantizeLinear reads: train the network before it is quantised, "
        "or freeze w",
    ),
    "subtracted": (
        "g (float[2,4] x) => (y) <float[4,4] w, float[4] shift> { h = MatMul(x, w)  [shifted] y = Sub(h, shift) }",
        {"w": (4, 4), "shift": (4,)},
        "shifted: shift isn't trained, though Sub reads it behind weights that are: freeze shift",
    ),
    "in a branch": (
        "g (float[2,4] x, bool choice) => (float[2,4] y) <float[4,4] w> { h = MatMul(x, w)"
        " [if] z = If (choice) <then_branch = t () => (float[2,4] a) <float[4] v = {1,2,3,4}> { a = Mul(x, v) },"
        " else_branch = e () => (float[2,4] b) { b = Identity(x) }>  y = Add(h, z) }",
        {"w": (4, 4)},
        "if: nothing is trained in a subgraph of If, which reads v: run fold-constants before, or freeze v",
    ),
    "shared with a branch": (
        "g (float[2,4] x, bool choice) => (float[2,4] y) <float[4,4] w> { h = MatMul(x, w)"
        " [if] z = If (choice) <then_branch = t () => (float[2,4] a) { a = MatMul(x, w) },"
        " else_branch = e () => (float[2,4] b) { b = Identity(x) }>  y = Add(h, z) }",
        {"w": (4, 4)},
        "if: nothing is trained in a subgraph of If, which reads w: run fold-constants before, or freeze w",
    ),
}


@pytest.mark.parametrize("kind", UNTRAINED)
def test_weights_that_would_silently_stay_as_they_are_are_refused_by_name(kind, make_model):
    text, weights, reason = UNTRAINED[kind]
    model = make_model(text, **weights)
    # what is inferred of a custom operator is its annotation
    for tensor in model.graph.tensors().values():
        if tensor.inputs and tensor.inputs[0].domain == "com.microsoft":
            tensor.dtype, tensor.shape = np.dtype(np.float32), [2, 4]
    with pytest.raises(PassError, match=re.escape(f"build-gradients: {reason}") + "$"):
        gradients(model)


@pytest.mark.parametrize("kind", ["recurrent", "other domain", "quantized", "subtracted"])
def test_what_is_frozen_may_stay_as_it_is(kind, make_model):
    text, weights, reason = UNTRAINED[kind]
    frozen = tuple(reason.rpartition("freeze ")[2].split(", "))
    model = make_model(text, **weights)
    for tensor in model.graph.tensors().values():
        if tensor.inputs and tensor.inputs[0].domain == "com.microsoft":
            tensor.dtype, tensor.shape = np.dtype(np.float32), [2, 4]
    trained, _ = gradients(model, frozen=frozen)
    assert trained == [n for n in weights if n in ("w", "fc") and n not in frozen]


def test_a_weight_shared_with_a_branch_that_shapes_decide_has_the_gradients_of_both(make_model, run, values_of):
    text = """g (float[N,4] x) => (y) <float[4,4] w, int64[1] four> {
      h = MatMul(x, w)
      width = Shape<start=1>(x)
      is_four = Equal(width, four)
      z = If (is_four) <
        then_branch = t () => (float[N,4] a) { a = MatMul(h, w) },
        else_branch = e () => (float[N,4] b) { b = Identity(h) }>
      y = Add(h, z)
    }"""
    model = make_model(text, w=(4, 4), four=np.array([4]))
    graph = Legalize().apply(BuildGradients().apply(AttachLoss(loss="mse").apply(model).model).model).model
    x, target = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    w = values_of(model)["w"]
    dy = 2 * (x @ w + x @ w @ w - target) / target.size
    expected = x.T @ (dy + dy @ w.T) + (x @ w).T @ dy
    np.testing.assert_allclose(run(graph, {"x": x, "target": target})["w.grad"], expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_through_a_branch_that_data_decide_is_refused(make_model):
    text = """g (float[2,4] x, bool choice) => (float[2,4] y) <float[4,4] w> {
      h = MatMul(x, w)
      [if] y = If (choice) <
        then_branch = t () => (float[2,4] a) { a = Relu(h) },
        else_branch = e () => (float[2,4] b) { b = Identity(h) }>
    }"""
    with pytest.raises(PassError, match="build-gradients: if: there is no gradient through the subgraphs of If"):
        gradients(make_model(text, w=(4, 4)))


FUNCTION = """<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
g (float[2,4] x) => (float[2,4] y) <float[4] b = {1,2,3,4}> {
  y = own.shifted(x, b)
}
<domain: "own", opset_import: ["" : 18]> shifted (x, b) => (y) { y = Add(x, b) }"""


def test_weights_in_functions_are_trained():
    assert gradients(parse_text(FUNCTION)) == (["b"], ())


@pytest.mark.parametrize(
    "name", ["block.scale", "prefix/block.0.scale", "half", "val_3", "onnx::Mul_7", "/a.0/Constant_output_0"]
)
def test_one_number_is_a_parameter_if_it_has_the_name_of_one(name, make_model):
    text = f'g (float[2,4] x) => (y) <float[4,4] w, float[1] "{name}"> {{ h = MatMul(x, w)  y = Mul(h, "{name}") }}'
    model = make_model(text, w=(4, 4), **{name: np.ones(1, np.float32)})
    assert gradients(model) == (["w", name] if name.endswith("scale") else ["w"], ())


def test_a_constant_that_images_are_brought_into_range_by_is_no_weight(make_model):
    text = "g (float[N,4] x) => (y) <float[4] mean, float[4,4] w> { c = Sub(x, mean)  y = MatMul(c, w) }"
    assert gradients(make_model(text, mean=(4,), w=(4, 4))) == (["w"], ())


def test_a_class_token_is_trained(make_model):
    text = """g (float[2,3,4] x) => (y) <float[1,1,4] token, int64[3] shape, float[4,2] w> {
      t = Expand(token, shape)
      both = Concat<axis=1>(t, x)
      y = MatMul(both, w)
    }"""
    model = make_model(text, token=np.zeros((1, 1, 4), np.float32), shape=np.array([2, 1, 4]), w=(4, 2))
    assert gradients(model) == (["token", "w"], ())


NORMALISED = """g (float[N,3,4,4] x) => (y)
<float[4,3,1,1] w, float[4] "{scale}", float[4] "{bias}", float[4,1,1] gamma> {{
  c = Conv(x, w)
  n = InstanceNormalization(c, "{scale}", "{bias}")
  {rest}
}}"""


def normalised(make_model, scale, bias, rest="y = Relu(n)", values=(ONES, ZEROS)):
    text = NORMALISED.format(scale=scale, bias=bias, rest=rest)
    weights = {"w": (4, 3, 1, 1), scale: values[0], bias: values[1], "gamma": (4, 1, 1)}
    return make_model(text, **{n: v for n, v in weights.items() if n != "gamma" or n in rest})


@pytest.mark.parametrize("names", [("/n/Constant_output_0", "/n/Constant_1_output_0"), ("val_8", "val_11"), ("7", "8")])
def test_scales_and_biases_that_an_exporter_made_up_are_not_trained(names, make_model):
    model = normalised(make_model, *names)
    note = f"not trained, since the network itself has no parameter there: {', '.join(names)}"
    assert gradients(model) == (["w"], (note,))
    assert gradients(model, trained=names) == (["w", *names], ())
    assert placeholder_notes(model.graph) == (note,)
    with pytest.raises(PassError, match=r"trained=val_9 names no constant"):
        gradients(model, trained=("val_9",))


def test_the_scales_of_a_resize_are_no_weights_that_a_note_names(make_model):
    text = """g (float[N,3,4,4] x) => (y) <float[4,3,1,1] w, float[2] "/Constant_1_output_0",
      float[2] "/Constant_output_0", float[3,1,1] "/Constant_2_output_0"> {
      scales = Concat<axis=0>("/Constant_1_output_0", "/Constant_output_0")
      m = Mul(x, "/Constant_2_output_0")  c = Conv(m, w)  y = Resize(c, , scales)
    }"""
    model = make_model(
        text, w=(4, 3, 1, 1), **{"/Constant_1_output_0": np.ones(2, np.float32)},
        **{"/Constant_output_0": np.full(2, 2, np.float32), "/Constant_2_output_0": (3, 1, 1)},
    )  # fmt: skip
    (note,) = placeholder_notes(model.graph)
    assert note.endswith("has no parameter there: /Constant_2_output_0")


def test_a_divisor_that_an_exporter_has_computed_is_no_weight(make_model):
    text = """g (float[N,3] x) => (y) <float[3,4] w, float[1,4] "{name}", float[4,2] fc> {{
      h = MatMul(x, w)  d = Div(h, "{name}")  y = MatMul(d, fc) }}"""

    def make(name):
        return make_model(text.format(name=name), w=(3, 4), **{name: (1, 4)}, fc=(4, 2))

    assert gradients(make("convert_element_type_default_1"))[0] == ["w", "fc"]
    with pytest.raises(PassError, match="temperature isn't trained, though Div reads it"):
        gradients(make("temperature"))


@pytest.mark.parametrize("name", ["scale", "val_3", "embedded.scale"])
def test_what_brings_pixels_into_range_is_not_trained(name, make_model):
    text = f"""g (float[N,3,4,4] x) => (y)
    <float[3,1,1] mean, float[3,1,1] "{name}", float[1,3,1,1] shift, float[4,3,1,1] w> {{
      centred = Sub(x, mean)
      scaled = Mul(centred, "{name}")
      shifted = Add(scaled, shift)
      y = Conv(shifted, w)
    }}"""
    weights = {"mean": (3, 1, 1), name: (3, 1, 1), "shift": (1, 3, 1, 1), "w": (4, 3, 1, 1)}
    trained, notes = gradients(make_model(text, **weights))
    is_parameter = name == "embedded.scale"
    assert trained == ([name, "w"] if is_parameter else ["w"])
    assert "shift" in notes[0]
    assert (name in notes[0]) != is_parameter


def test_a_norm_with_names_of_its_own_or_with_learned_values_is_trained(make_model):
    assert gradients(normalised(make_model, "norm.weight", "norm.bias")) == (["w", "norm.weight", "norm.bias"], ())
    learned = normalised(make_model, "val_8", "val_11", values=(ONES * 2, ZEROS))
    assert gradients(learned) == (["w", "val_8", "val_11"], ())


def test_a_neutral_norm_before_a_scale_is_not_trained(make_model):
    assert gradients(normalised(make_model, "s", "b", "y = Mul(n, gamma)"))[0] == ["w", "gamma"]
    read_twice = "m = Mul(n, gamma)  y = Add(m, n)"
    assert gradients(normalised(make_model, "s", "b", read_twice))[0] == ["w", "s", "b", "gamma"]


def test_an_anti_aliasing_filter_is_not_trained(make_model):
    text = """g (float[N,3,6,6] x) => (y) <float[4,3,1,1] w, float[4,1,3,3] blur> {
      c = Conv(x, w)
      y = Conv<group=4>(c, blur)
    }"""
    binomial = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
    repeated = np.broadcast_to(binomial, (4, 1, 3, 3)).copy()
    assert gradients(make_model(text, w=(4, 3, 1, 1), blur=repeated))[0] == ["w"]
    assert gradients(make_model(text, w=(4, 3, 1, 1), blur=(4, 1, 3, 3)))[0] == ["w", "blur"]
    assert gradients(make_model(text, w=(4, 3, 1, 1), blur=np.ones((4, 1, 3, 3), np.float32)))[0] == ["w", "blur"]


def test_padding_in_concat_is_not_trained(make_model):
    text = """g (float[2,4] x) => (y) <float[4,4] w, float[2,4] "{name}"> {{
      h = MatMul(x, w)
      y = Concat<axis=1>(h, "{name}")
    }}"""
    for name, trained in (("val_3", ["w"]), ("token", ["w", "token"])):
        model = make_model(text.format(name=name), w=(4, 4), **{name: np.zeros((2, 4), np.float32)})
        assert gradients(model)[0] == trained


def test_mixed_precision_and_gradients_agree_on_what_is_trained(make_model):
    lossy = AttachLoss(loss="mse").apply(normalised(make_model, "val_8", "val_11")).model
    half = MixedPrecision().apply(lossy).model
    assert [t.name for t in BuildGradients().apply(half).model.graph.outputs] == ["loss", "w.grad"]


SHARED = """g (float[N,4] x) => (y, z) <float[4,4] v, float[4,4] w, float[4] ones, float[4] b> {{
  z = MatMul(x, w)
  h = MatMul(x, v)
  [node_first] h1 = Mul(h, ones)
  i = MatMul(h1, {weight})
  [node_second] i1 = Mul(i, {scale})
  y = Add(i1, b)
}}"""


def test_equal_parameters_of_layers_are_separated_and_shared_layers_stay_shared(make_model):
    def names(weight, scale, values):
        model = make_model(SHARED.format(weight=weight, scale=scale), v=(4, 4), w=(4, 4), ones=values, b=(4,))
        count = separate_merged_parameters(model.graph)
        assert separate_merged_parameters(model.graph) == 0
        return count, [t.name for node in model.graph.nodes if node.op == "Mul" for t in node.inputs[1:]]

    assert names("w", "ones", ONES) == (1, ["ones", "node_second/ones"])
    assert names("v", "ones", ONES) == (0, ["ones", "ones"])
    assert names("w", "ones", np.arange(4, dtype=np.float32)) == (0, ["ones", "ones"])


def test_norms_on_a_residual_stream_and_on_parts_of_one_tensor_are_separated(make_model):
    text = """g (float[N,8] x) => (y) <float[8] embedding, float[8,8] w, float[8] ones, float[4] fours> {
      e = Add(x, embedding)
      [node_a] a = LayerNormalization(e, ones)
      b = MatMul(a, w)
      r = Add(e, b)
      [node_c] c = LayerNormalization(r, ones)
      q, k = Split<axis=1, num_outputs=2>(c)
      m, n = Split<axis=1, num_outputs=2>(b)
      [node_m] m1 = LayerNormalization(m, fours)
      [node_n] n1 = LayerNormalization(n, fours)
      y = Sum(q, k, m1, n1)
    }"""
    weights = {"embedding": (8,), "w": (8, 8), "ones": np.ones(8, np.float32), "fours": np.ones(4, np.float32)}
    model = make_model(text, **weights)
    assert separate_merged_parameters(model.graph) == 2
    scales = [n.inputs[1].name for n in model.graph.nodes if n.op == "LayerNormalization"]
    assert scales == ["ones", "node_c/ones", "fours", "node_n/fours"]


def test_a_constant_that_layers_of_another_exporter_share_stays_shared(make_model):
    text = SHARED.replace("node_", "").format(weight="w", scale="ones")
    model = make_model(text, v=(4, 4), w=(4, 4), ones=ONES, b=(4,))
    assert separate_merged_parameters(model.graph) == 0


def test_running_statistics_that_are_equal_at_first_are_separated(make_model):
    text = """g (float[N,4] x) => (y) <float[4,4] w, float[4] ones, float[4] zeros> {
      c = MatMul(x, w)
      [node_norm] y = BatchNormalization(c, ones, zeros, zeros, ones)
    }"""
    model = make_model(text, w=(4, 4), ones=ONES, zeros=ZEROS)
    assert separate_merged_parameters(model.graph) == 2
    (norm,) = (n for n in model.graph.nodes if n.op == "BatchNormalization")
    assert [t.name for t in norm.inputs[1:]] == ["ones", "zeros", "node_norm/zeros", "node_norm/ones"]
