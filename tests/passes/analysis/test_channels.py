"""Which channels the analysis ties, locks and follows, one operator or layout at a time."""

from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.analysis.channels import ChannelAnalysis, analyse_channels
from wootz.passes.analysis.static_shapes import static_shapes
from wootz.passes.ir.text import parse_text
from wootz.passes.pruning.cells import MISALIGNED, find_cells


def ones(*shape: int) -> str:
    return ",".join(["1"] * int(np.prod(shape)))


def analysis(body: str, **weights: tuple[int, ...]) -> ChannelAnalysis:
    """The analysis of nodes `body` on an image x[N,2,4,4], with output y and float weights of the given shapes."""
    constants = ", ".join(f"float[{','.join(map(str, s))}] {name} = {{{ones(*s)}}}" for name, s in weights.items())
    extra = body.partition("|")[2]
    constants = ", ".join(part for part in (constants, extra) if part)
    nodes = body.partition("|")[0]
    text = f'<ir_version: 8, opset_import: ["" : 18]> g (float[N,2,4,4] x) => (float y) <{constants}> {{ {nodes} }}'
    return analyse_channels(parse_text(text))


def tied(found: ChannelAnalysis, one: str, other: str) -> list[tuple[int, int]]:
    """Pairs of filters of two layers that share a channel."""
    layers = {layer.name: found.channels(layer).tolist() for layer in found.layers}
    return [(i, j) for i, a in enumerate(layers[one]) for j, b in enumerate(layers[other]) if a == b]


def reason(found: ChannelAnalysis, layer: str) -> str | None:
    return next(found.lock_reason(entry) for entry in found.layers if entry.name == layer)


TWO = "[a] s = Conv(x, wa) [b] t = Conv(x, wb) "
WEIGHTS = {"wa": (4, 2, 1, 1), "wb": (4, 2, 1, 1)}
DIAGONAL = [(i, i) for i in range(4)]


@pytest.mark.parametrize("op", ["Add", "Mul", "Max", "Sub", "Pow"])
def test_elementwise_operators_tie_their_operands(op: str) -> None:
    found = analysis(TWO + f"[j] j = {op}(s, t) [c] y = Conv(j, wc)", **WEIGHTS, wc=(1, 4, 1, 1))
    assert tied(found, "a", "b") == DIAGONAL
    assert reason(found, "a") is None


def test_concatenation_shifts_and_a_split_divides() -> None:
    found = analysis(
        TWO
        + "[j] j = Concat<axis = 1>(s, t) [d] d = Conv(x, wd) [k] k = Add(j, d) [p] p, q = Split<axis = 1>(k, sizes) "
        "[c] u = Conv(p, wc) [e] v = Conv(q, we) [z] y = Add(u, v) | int64[2] sizes = {2, 6}",
        **WEIGHTS,
        wd=(8, 2, 1, 1),
        wc=(1, 2, 1, 1),
        we=(1, 6, 1, 1),
    )
    assert tied(found, "a", "d") == [(i, i) for i in range(4)]
    assert tied(found, "b", "d") == [(i, i + 4) for i in range(4)]
    assert [len(atoms) for atoms in found.never_empty] == [2, 6]


def test_a_depthwise_convolution_has_the_filters_before_it() -> None:
    found = analysis(
        "[a] s = Conv(x, wa) [d] t = Conv<group = 4>(s, wd) [c] y = Conv(t, wc)",
        wa=(4, 2, 1, 1),
        wd=(8, 1, 1, 1),
        wc=(1, 8, 1, 1),
    )
    assert tied(found, "a", "d") == [(i // 2, i) for i in range(8)]


def test_the_groups_of_a_convolution_keep_equally_many() -> None:
    found = analysis(
        "[a] s = Conv(x, wa) [g] t = Conv<group = 2>(s, wg) [c] y = Conv(t, wc)",
        wa=(4, 2, 1, 1),
        wg=(6, 2, 1, 1),
        wc=(1, 6, 1, 1),
    )
    assert sorted(p.shape for p in found.partitions) == [(2, 2), (2, 3)]
    assert tied(found, "a", "g") == []


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("[f] f = Flatten(s) [c] y = Gemm(f, wc)", (64, 3)),
        ("[f] f = Reshape(s, flat) [c] y = MatMul(f, wc) | int64[2] flat = {0, -1}", (64, 3)),
    ],
)
def test_flattening_gives_every_channel_its_positions(body: str, shape: tuple[int, ...]) -> None:
    nodes, _, extra = body.partition("|")
    found = analysis(f"[a] s = Conv(x, wa) {nodes}|{extra}", wa=(4, 2, 1, 1), wc=shape)
    (use,) = (u for u in found.parameters if u.constant == "wc")
    inputs = next(m for m in use.maps if m.shape[0] == 64).ravel()
    assert inputs.tolist() == [i // 16 for i in range(64)]


SHUFFLE = (
    "[a] s = Conv(x, wa) [r] r = Reshape(s, apart) [t] t = Transpose<perm = [0, 2, 1, 3, 4]>(r) {} "
    "[u] u = Reshape(t, together) [c] y = Conv(u, wc) | int64[5] apart = {{0,2,2,4,4}}, int64[4] together = {{0,4,4,4}}"
)


def test_a_shuffle_permutes_and_ties_nothing() -> None:
    found = analysis(SHUFFLE.format(""), wa=(4, 2, 1, 1), wc=(1, 4, 1, 1))
    assert found.maps["u"].ravel().tolist() == [0, 2, 1, 3]
    assert len(found.permutations) == 1
    assert len(set(found.channel_of[:4].tolist())) == 4


def test_another_reader_of_the_split_layout_ties_its_rows() -> None:
    body = SHUFFLE.format("[o] o = Relu(r) [m] m = ReduceMax<keepdims = 0>(o, rows) [d] e = Conv(m, wd)")
    found = analysis(body + ", int64[1] rows = {1}", wa=(4, 2, 1, 1), wc=(1, 4, 1, 1), wd=(1, 2, 1, 1))
    assert found.permutations == ()
    assert found.channel_of[:4].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[r] y = Relu(s)", "output 'y' of the network"),
        ("[l] t = LRN<size = 3>(s) [c] y = Conv(t, wc)", "LRN 'l' couples neighbouring channels: removing one isn't"),
        ("[l] t = Softmax<axis = 1>(s) [c] y = Conv(t, wc)", "Softmax 'l' couples the channels of a position"),
        ("[l] t = ReduceMean(s, one) [c] y = Mul(t, s)", "ReduceMean 'l' reduces over channels"),
        ("[l] t = Trilu(s) [c] y = Conv(t, wc)", "Trilu 'l': no rule says what becomes of channels there"),
        ("[l] t = Add(s, image) [c] y = Conv(t, wc)", "Add 'l' combines them with 'image', which can't be pruned"),
        ("[l] t = Gather<axis = 1>(s, two) [c] y = Relu(t)", "Gather 'l' picks single channels"),
    ],
)
def test_what_cannot_be_removed_is_locked_with_the_reason(body: str, expected: str) -> None:
    start = "[i] image = Concat<axis = 1>(x, x) [a] s = Conv(x, wa) "
    found = analysis(f"{start}{body} | int64[1] one = {{1}}, int64 two = {{2}}", wa=(4, 2, 1, 1), wc=(1, 4, 1, 1))
    assert (reason(found, "a") or "").startswith(expected) or expected in found.locks.values()


def test_custom_operators_lock_what_they_read_and_the_rest_is_pruned() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]>
    g (float[1,2,4,4] x) => (float[1,1,4,4] y)
    <float[4,2,1,1] wa = {1,1,1,1,1,1,1,1}, float[2,4,1,1] wb = {1,1,1,1,1,1,1,1}, float[1,2,1,1] wc = {1,1}>
    { [a] s = Conv(x, wa) [b] t = Conv(s, wb) [m] u = acme.Magic(t) [c] y = Conv(u, wc) }"""
    found = analyse_channels(parse_text(text))
    assert reason(found, "a") is None
    assert reason(found, "b") == "Magic 'm': no rule says what becomes of channels there"


def test_what_follows_a_custom_operator_is_pruned_if_its_shape_is_annotated() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]> g (float[N,2,4,4] x) => (float[N,1,4,4] y)
    <float[2,2,1,1] wa = {1,1,1,1}, float[1,2,1,1] wb = {1,1}, float[N,2,4,4] m>
    { [m] m = acme.Magic(x) [a] s = Conv(m, wa) [b] y = Conv(s, wb) }"""
    found = analyse_channels(parse_text(text))
    assert reason(found, "a") is None
    assert [layer.name for layer in found.layers] == ["a", "b"]


def test_constant_channels_are_removed_with_the_filters_that_they_are_added_to() -> None:
    """Option A of CIFAR ResNets: a shortcut padded with zeros."""
    found = analysis(
        "[a] s = Conv(x, wa) [p] p = Pad(s, pads) [b] t = Conv(x, wb) [j] j = Add(p, t) [c] y = Conv(j, wc)"
        "| int64[8] pads = {0,1,0,0,0,1,0,0}",
        wa=(4, 2, 1, 1),
        wb=(6, 2, 1, 1),
        wc=(1, 6, 1, 1),
    )
    assert tied(found, "a", "b") == [(i, i + 1) for i in range(4)]
    assert reason(found, "a") is None
    assert reason(found, "b") is None
    cells, _ = find_cells(found)
    assert sorted(len(cell.channels) for cell in cells) == [2, 4]


def test_a_softmax_over_branches_ties_them() -> None:
    """Selective kernels: weights of shape (2 branches, channels), normalised over the branches."""
    found = analysis(
        "[a] s = Conv(x, wa) [r] r = Reshape(s, apart) [m] m = Softmax<axis = 1>(r) [u] u = ReduceSum(m, one) "
        "[q] q = Reshape(u, flat) [c] y = Conv(q, wc)"
        "| int64[5] apart = {0,2,2,4,4}, int64[1] one = {1}, int64[4] flat = {0,2,4,4}",
        wa=(4, 2, 1, 1),
        wc=(1, 2, 1, 1),
    )
    assert found.channel_of[:4].tolist() == [0, 1, 0, 1]
    assert reason(found, "a") is None


def test_a_product_of_activations_ties_what_it_sums_over_and_passes_on_the_rest() -> None:
    """Attention: queries and keys are summed over, values go on."""
    found = analysis(
        "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [v] u = Conv(x, wv) [q] q = Reshape(s, rows) [k] k = Reshape(t, rows) "
        "[h] h = Reshape(u, rows) [t] p = Transpose<perm = [0, 2, 1]>(q) [l] l = MatMul(p, k) "
        "[z] z = Softmax<axis = 1>(l) [o] o = MatMul(h, z) [i] i = Reshape(o, image) [c] y = Conv(i, wc)"
        "| int64[3] rows = {0,4,16}, int64[4] image = {0,4,4,4}",
        **WEIGHTS,
        wv=(4, 2, 1, 1),
        wc=(1, 4, 1, 1),
    )
    assert tied(found, "a", "b") == DIAGONAL
    assert tied(found, "a", "v") == []
    assert reason(found, "a") is None
    assert reason(found, "v") is None
    assert found.channels_in("i").tolist() == found.channels(found.layers[2]).tolist()


def test_a_product_over_channels_of_another_kind_is_locked() -> None:
    found = analysis(
        "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [q] q = Reshape(s, rows) [k] k = Reshape(t, rows) "
        "[t] p = Transpose<perm = [0, 2, 1]>(k) [l] l = MatMul(q, p) [i] i = Unsqueeze(l, one) [c] y = Conv(i, wc)"
        "| int64[3] rows = {0,4,16}, int64[1] one = {1}",
        **WEIGHTS,
        wc=(1, 1, 1, 1),
    )
    assert reason(found, "a") == "MatMul 'l' multiplies channels along different axes"


def test_a_convolution_over_the_channels_locks_them() -> None:
    """Efficient channel attention: each gate is computed from neighbouring channels."""
    found = analysis(
        "[a] s = Conv(x, wa) [p] p = GlobalAveragePool(s) [r] r = Reshape(p, line) [e] e = Conv<pads = [1,1]>(r, we) "
        "[q] q = Reshape(e, gate) [m] m = Mul(s, q) [c] y = Conv(m, wc)"
        "| int64[3] line = {0,1,4}, int64[4] gate = {0,4,1,1}",
        wa=(4, 2, 1, 1),
        we=(1, 1, 3),
        wc=(1, 4, 1, 1),
    )
    assert reason(found, "a") == "Conv 'e' couples neighbouring channels: removing one isn't zeroing it"


def test_quantised_and_standardised_weights_are_followed() -> None:
    found = analysis(
        "[d] wd = DequantizeLinear<axis = 0>(wq, scale) [a] s = Conv(x, wd) [n] w = Sub(wb, mean) [b] t = Conv(s, w) "
        "[c] y = Conv(t, wc) | int8[4,2,1,1] wq = {1,1,1,1,1,1,1,1}",
        scale=(4,),
        mean=(3, 1, 1, 1),
        wb=(3, 4, 1, 1),
        wc=(1, 3, 1, 1),
    )
    assert [layer.size for layer in found.layers] == [4, 3, 1]
    assert reason(found, "a") is None
    assert reason(found, "b") is None
    assert {use.constant for use in found.parameters} >= {"wq", "scale", "w"}
    assert found.computed == ("wd", "w")


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("[a] s = Conv(x, wa) [c] y = Conv(s, wc)", {"wa": (0, 2, 1, 1), "wc": (1, 0, 1, 1)}, []),
        ("[a] s = Conv<group = 0>(x, wa) [c] y = Conv(s, wc)", {"wa": (4, 2, 1, 1), "wc": (1, 4, 1, 1)}, ["c"]),
        ("[a] s = Conv<group = 3>(x, wa) [c] y = Conv(s, wc)", {"wa": (4, 2, 1, 1), "wc": (1, 4, 1, 1)}, ["c"]),
    ],
)
def test_impossible_layers_are_none(body: str, weights: dict[str, tuple[int, ...]], expected: list[str]) -> None:
    found = analysis(body, **weights)
    assert [layer.name for layer in found.layers] == expected


def test_a_shared_weight_ties_both_uses() -> None:
    found = analysis(
        "[a] s = Conv(x, wa) [b] t = Conv(x, wa) [c] u = Conv(s, wc) [d] v = Conv(t, wc) [z] y = Add(u, v)",
        wa=(4, 2, 1, 1),
        wc=(1, 4, 1, 1),
    )
    assert tied(found, "a", "b") == DIAGONAL


def test_channels_under_different_reshapes_of_groups_are_locked() -> None:
    """Groups of 3 channels over parts of 2 and 4: no equal rates keep equal counts."""
    found = analysis(
        "[a] s = Conv(x, wa) [b] t = Conv(x, wb) [j] j = Concat<axis = 1>(s, t) "
        "[g] k = Conv<group = 2>(j, wg) [c] y = Conv(k, wc)",
        wa=(2, 2, 1, 1),
        wb=(4, 2, 1, 1),
        wg=(2, 3, 1, 1),
        wc=(1, 2, 1, 1),
    )
    cells, locks = find_cells(found)
    assert MISALIGNED in locks.values()
    assert not {channel for cell in cells for channel in cell.channels.tolist()} & locks.keys()


CUSTOM = """<ir_version: 8, opset_import: ["" : 18, "acme" : 1]> g (float[N,3,8,8] x) => (float[M,2] y)
<float[4,3,1,1] wa = {WEIGHTS}, float[4,{INPUTS},1,1] wb = {WEIGHTS}, float[2,{FEATURES}] wc = {WEIGHTS}>
{ [a] t = Conv(x, wa) [m] u = acme.Magic(t) [b] v = Conv(u, wb) [r] w = Relu(v) [f] z = Flatten(w)
  [c] y = Gemm<transB = 1>(z, wc) }"""


def behind_custom_operator(inputs: int, features: int) -> ChannelAnalysis:
    text = CUSTOM.replace("{INPUTS}", str(inputs)).replace("{FEATURES}", str(features))
    for count in (12, 4 * inputs, 2 * features):
        text = text.replace("{WEIGHTS}", "{" + ",".join(["1"] * count) + "}", 1)
    return analyse_channels(parse_text(text))


def test_the_shape_behind_a_custom_operator_is_that_before_it_where_nothing_contradicts() -> None:
    """With the channels that the next convolution reads."""
    found = behind_custom_operator(inputs=6, features=4 * 8 * 8)
    assert [layer.name for layer in found.layers] == ["a", "b", "c"]
    assert reason(found, "a") == "Magic 'm': no rule says what becomes of channels there"
    assert reason(found, "b") is None
    assert found.shapes["u"] == (1, 6, 8, 8)


def test_what_follows_a_custom_operator_stays_where_its_shape_can_not_be_told() -> None:
    """The fully connected layer says that the image has another size than before the operator."""
    found = behind_custom_operator(inputs=4, features=4 * 4 * 4)
    assert found.shapes.get("u") is None
    assert [layer.name for layer in found.layers] == ["a"]


def test_what_is_added_to_a_normalised_tensor_is_locked_for_the_normalisation() -> None:
    found = analysis(
        "[a] s = Conv(x, wa) [t] t = Transpose<perm = [0,2,3,1]>(s) [l] u = LayerNormalization(t, scale) "
        "[u] v = Transpose<perm = [0,3,1,2]>(u) [b] w = Conv(v, wb) [z] k = Add(v, w) [c] y = Conv(k, wc)"
        "| float[4] scale = {1,1,1,1}",
        wa=(4, 2, 1, 1),
        wb=(4, 4, 1, 1),
        wc=(1, 4, 1, 1),
    )
    expected = "LayerNormalization 'l' normalises over channels: removing one isn't zeroing it"
    assert reason(found, "a") == expected
    assert reason(found, "b") == expected


def test_an_input_of_symbolic_channels_has_those_that_its_convolution_reads() -> None:
    model = parse_text(
        """<ir_version: 8, opset_import: ["" : 18]> g (float[N,C,H,W] x) => (float[N,2,H,W] y)
        <float[4,3,1,1] v = {1,2,3,4,5,6,7,8,9,10,11,12}, float[2,4,1,1] w = {1,2,3,4,5,6,7,8}>
        { [a] h = Conv(x, v) [b] y = Conv(h, w) }"""
    )
    assert static_shapes(model).shapes["x"] == (1, 3, 224, 224)
