"""Damaged and malicious networks: an error that names the place, or a model; never anything else."""

from __future__ import annotations

import contextlib
import random
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.frontend.caffe.importer import import_network
from wootz.frontend.caffe.network import NetState, read_network
from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.frontend.caffe.weights import FilledWeights
from wootz.passes.errors import InputError

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "net.prototxt"
HEAD = 'input: "x" input_dim: 1 input_dim: 2 input_dim: 8 input_dim: 8 '


def attempt(text: str) -> None:
    network = read_network(parse_prototxt(text, "net.prototxt"))
    import_network(network, FilledWeights(seed=0), NetState(), {}).model.to_proto()


@given(st.integers(0, 2**32), st.integers(1, 6))
@settings(max_examples=60)
def test_a_damaged_network_is_read_or_refused(seed: int, edits: int) -> None:
    choose = random.Random(seed)
    words = DIGITS.read_text().split(" ")
    for _ in range(edits):
        at = choose.randrange(len(words))
        words[at] = choose.choice(
            ["", "-1", "0", "99999999999", "nan", "{", "}", '"', "type:", "true", words[choose.randrange(len(words))]]
        )
    with contextlib.suppress(InputError):
        attempt(" ".join(words))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "InnerProduct" inner_product_param { num_output: 2147483647 }', "would start from its filler: up to"),
        ('type: "Tile" tile_param { tiles: 2147483647 }', "has more elements than 2^31"),
        ('type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 1 stride: 999999 }', "than 2^31"),
        ('type: "Im2col" convolution_param { kernel_size: 2000 pad: 1000 }', "too large to be written"),
        ('type: "Upsample" upsample_param { scale: 100000 }', "has more elements than 2^31"),
        ('type: "PriorBox" bottom: "x" prior_box_param { min_size: 1 ' + "min_size: 1 " * 70000 + "}", "are computed"),
    ],
)
def test_sizes_that_overflow_are_refused(layer: str, message: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as error:
        attempt(f'{HEAD} layer {{ name: "l" bottom: "x" top: "y" {layer} }}')
    assert message in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        ([65536, 65536], 'type: "ReLU"', "has more elements than 2^31"),
        (
            [1, 4, 1, 2**28],
            'type: "PSROIPooling" bottom: "r" psroi_pooling_param { spatial_scale: 1 output_dim: 1 group_size: 2 }',
            "too many, or none",
        ),
        (
            [1, 2, 20000, 20000],
            'type: "Proposal" bottom: "x" bottom: "r" proposal_param { ratio: 1 scale: 1 }',
            "of shape",
        ),
    ],
)
def test_large_inputs_cost_no_memory(shape, layer, message) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as error:
        attempt(
            f'input: "x" input_shape {{ dim: {shape} }} input: "r" input_shape {{ dim: [1, 5] }} '
            f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}'
        )
    assert message in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18


def test_anchors_are_computed_up_to_a_number() -> None:
    sizes = " ".join(f'input: "{n}" input_shape {{ dim: [1, {c}, 9000, 9000] }}' for n, c in (("s", 2), ("d", 4)))
    with pytest.raises(InputError, match="9000×9000×1 anchors: up to"):
        attempt(
            f'{sizes} input: "i" input_shape {{ dim: [1, 3] }} layer {{ name: "p" type: "Proposal" bottom: "s" '
            f'bottom: "d" bottom: "i" top: "y" proposal_param {{ ratio: 1 scale: 8 }} }}'
        )


def test_many_layers_take_linear_time() -> None:
    layers = "".join(
        f'layer {{ name: "same" type: "ReLU" bottom: "b{i}" top: "b{i + 1}" module: "m{i % 500}" }}\n'
        for i in range(10_000)
    )
    with pytest.raises(InputError, match="module 'm0' has 20 entry tensors"):
        attempt(f'input: "b0" input_shape {{ dim: 1 dim: 2 }} {layers}')


def test_a_cycle_is_refused() -> None:
    with pytest.raises(InputError, match="layers have to stand in order of data flow"):
        attempt(
            f'{HEAD} layer {{ name: "a" type: "ReLU" bottom: "b" top: "a" }} '
            f'layer {{ name: "b" type: "ReLU" bottom: "a" top: "b" }}'
        )
