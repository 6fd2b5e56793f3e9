from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError


def channels_of(vector: np.ndarray) -> np.ndarray:
    return vector[:, None, None]


@pytest.fixture
def x(random) -> np.ndarray:
    return random.normal(1, 2, size=(3, 4, 5, 6)).astype(np.float32)


@pytest.fixture
def statistics(random) -> tuple[np.ndarray, np.ndarray]:
    return random.normal(size=4), random.uniform(0.5, 2, size=4)


@pytest.mark.parametrize("factor", [1.0, 999.98, 0.0])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_batch_norm_divides_its_statistics_by_the_factor(run_layer, close, x, statistics, factor, eps) -> None:
    mean, variance = statistics
    found = run_layer(
        f'type: "BatchNorm" batch_norm_param {{ eps: {eps} }}',
        x,
        [mean * factor, variance * factor, np.array([factor])],
    )
    if factor == 0:
        mean, variance = mean * 0, variance * 0
    close(found, ((x - channels_of(mean)) / np.sqrt(channels_of(variance) + eps)).astype(np.float32))


def test_batch_norm_without_global_statistics_uses_the_batch(run_layer, close, x, statistics) -> None:
    found = run_layer('type: "BatchNorm" batch_norm_param { use_global_stats: false }', x, [*statistics, np.ones(1)])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    close(found, (x - channels_of(mean)) / np.sqrt(channels_of(variance) + 1e-5))


@pytest.mark.parametrize("order", ["nvidia", "xilinx", "four", "two"])
def test_batch_norm_of_forks(run_layer, random, close, x, statistics, order) -> None:
    mean, variance = statistics
    scale, bias = random.normal(size=4), random.normal(size=4)
    blobs = {
        "nvidia": [mean * 2, variance * 2, np.array([2.0]), scale, bias],
        "xilinx": [scale, bias, mean, variance, np.zeros(1)],
        "four": [scale, bias, mean, variance],
        "two": [mean, variance],
    }[order]
    if order == "two":
        scale, bias = np.ones(4), np.zeros(4)
    wanted = channels_of(scale) * (x - channels_of(mean)) / np.sqrt(channels_of(variance) + 1e-5) + channels_of(bias)
    close(run_layer('type: "BatchNorm"', x, blobs), wanted.astype(np.float32))


def test_the_bn_of_pspnet_has_slope_bias_mean_and_variance(run_layer, random, close, x, statistics) -> None:
    mean, variance = statistics
    slope, bias = random.normal(size=4), random.normal(size=4)
    found = run_layer('type: "BN" bn_param { frozen: true eps: 0.001 }', x, [slope, bias, mean, variance])
    wanted = channels_of(slope) * (x - channels_of(mean)) / np.sqrt(channels_of(variance) + 1e-3) + channels_of(bias)
    close(found, wanted.astype(np.float32))


def test_the_bn_of_segnet_scales_and_shifts(run_layer, random, close, x) -> None:
    scale, shift = random.normal(size=4), random.normal(size=4)
    found = run_layer('type: "BN" bn_param { bn_mode: INFERENCE }', x, [scale, shift])
    close(found, (x * channels_of(scale) + channels_of(shift)).astype(np.float32))


SCALE_CASES = [((4,), 1, 1), ((4, 5), 1, 2), ((4, 5, 6), 1, -1), ((6,), -1, 1), ((5, 6), 2, 2), ((), 0, 0)]


@pytest.mark.parametrize("bias_term", [True, False])
@pytest.mark.parametrize(("shape", "axis", "num_axes"), SCALE_CASES)
def test_scale(run_layer, random, close, x, shape, axis, num_axes, bias_term) -> None:
    scale, bias = random.normal(size=shape), random.normal(size=shape)
    text = f"""type: "Scale" scale_param {{ axis: {axis} num_axes: {num_axes} bias_term: {str(bias_term).lower()} }}"""
    found = run_layer(text, x, [scale, bias] if bias_term else [scale])
    spread = shape + (1,) * (x.ndim - axis % x.ndim - len(shape)) if shape else ()
    close(found, (x * scale.reshape(spread) + (bias.reshape(spread) if bias_term else 0)).astype(np.float32))


@pytest.mark.parametrize(("shape", "axis"), [((3, 4), 0), ((4,), 1), ((3, 4, 5, 6), 0), ((5, 6), 2)])
@pytest.mark.parametrize("layer_type", ["Scale", "Bias"])
def test_scale_and_bias_of_two_bottoms(run_layer, random, close, x, shape, axis, layer_type) -> None:
    factor = random.normal(size=shape).astype(np.float32)
    spread = factor.reshape(shape + (1,) * (x.ndim - axis - len(shape)))
    found = run_layer(f'type: "{layer_type}" {layer_type.lower()}_param {{ axis: {axis} }}', [x, factor])
    close(found, x * spread if layer_type == "Scale" else x + spread)


def test_bias(run_layer, random, close, x) -> None:
    bias = random.normal(size=4)
    close(run_layer('type: "Bias"', x, [bias]), (x + channels_of(bias)).astype(np.float32))


@pytest.mark.parametrize(("size", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 1), (3, 0.5, 0.5, 2), (1, 1, 1, 1)])
def test_lrn_across_channels(run_layer, close, x, size, alpha, beta, k) -> None:
    text = f"""type: "LRN" lrn_param {{ local_size: {size} alpha: {alpha} beta: {beta} k: {k} }}"""
    padded = np.pad(x**2, ((0, 0), (size // 2,) * 2, (0, 0), (0, 0)))
    sums = np.stack([padded[:, c : c + size].sum(1) for c in range(x.shape[1])], 1)
    close(run_layer(text, x), x * (k + alpha / size * sums) ** -beta)


@pytest.mark.parametrize(("size", "alpha", "beta"), [(3, 5e-5, 0.75), (5, 0.5, 0.5)])
def test_lrn_within_channels(run_layer, close, x, size, alpha, beta) -> None:
    text = f"""type: "LRN" lrn_param {{ local_size: {size} alpha: {alpha} beta: {beta} norm_region: WITHIN_CHANNEL }}"""
    pad = size // 2
    padded = np.pad(x**2, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    means = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3)).mean((4, 5))
    close(run_layer(text, x), x * (1 + alpha * means) ** -beta)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("variance", [True, False])
def test_mvn(run_layer, close, x, across, variance) -> None:
    text = f"""type: "MVN" mvn_param {{ across_channels: {str(across).lower()} eps: 0.1
        normalize_variance: {str(variance).lower()} }}"""
    axes = (1, 2, 3) if across else (2, 3)
    wanted = x - x.mean(axes, keepdims=True)
    if variance:
        wanted = wanted / (x.std(axes, keepdims=True) + 0.1)
    close(run_layer(text, x), wanted)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_normalize(run_layer, random, close, x, across, shared) -> None:
    scale = random.normal(size=1 if shared else 4)
    text = f"""type: "Normalize" norm_param {{ across_spatial: {str(across).lower()}
        channel_shared: {str(shared).lower()} }}"""
    norm = np.sqrt((x**2).sum((1, 2, 3) if across else 1, keepdims=True) + 1e-10)
    close(run_layer(text, x, [scale]), (x / norm * (scale if shared else channels_of(scale))).astype(np.float32))


def test_an_even_window_of_lrn_is_refused(load) -> None:
    with pytest.raises(InputError, match="local_size has to be odd, not 4"):
        load("""input: "x" input_dim: 1 input_dim: 2 input_dim: 4 input_dim: 4
            layer { name: "n" type: "LRN" bottom: "x" top: "y" lrn_param { local_size: 4 } }""")


BATCH_NORM_AND_SCALE = """input: "x" input_dim: 1 input_dim: 4 input_dim: 3 input_dim: 3
    layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" }
    layer { name: "scale" type: "Scale" bottom: "bn" top: "y" scale_param { bias_term: true }
            param { lr_mult: 2 } param { decay_mult: 0 } }"""


def test_batch_norm_and_scale_become_one(load, run, random, close, statistics) -> None:
    scale, bias = random.normal(size=4), random.normal(size=4)
    result = load(BATCH_NORM_AND_SCALE, {"bn": [*statistics, np.ones(1)], "scale": [scale, bias]})
    (node,) = result.model.graph.nodes
    assert (node.op, [t.name for t in node.inputs[1:]]) == (
        "BatchNormalization",
        ["bn.scale", "bn.bias", "bn.mean", "bn.variance"],
    )
    x = random.normal(size=(2, 4, 3, 3)).astype(np.float32)
    mean, variance = statistics
    wanted = channels_of(scale) * (x - channels_of(mean)) / np.sqrt(channels_of(variance) + 1e-5) + channels_of(bias)
    close(run(result, {"x": x})["y"], wanted.astype(np.float32))
    assert result.model.metadata["wootz.multipliers"] == '{"bn.scale": [2.0, 1.0], "bn.bias": [1.0, 0.0]}'


def test_batch_norm_that_is_read_twice_stays_alone(load) -> None:
    result = load(BATCH_NORM_AND_SCALE + ' layer { name: "r" type: "ReLU" bottom: "bn" top: "r" }')
    assert sorted(n.op for n in result.model.graph.nodes) == ["Add", "BatchNormalization", "Mul", "Relu"]


def test_batch_norm_without_scale_has_a_frozen_one(load) -> None:
    text = BATCH_NORM_AND_SCALE[: BATCH_NORM_AND_SCALE.index('layer { name: "scale"')]
    assert load(text).model.metadata["wootz.multipliers"] == '{"bn.scale": [0.0, 0.0], "bn.bias": [0.0, 0.0]}'
