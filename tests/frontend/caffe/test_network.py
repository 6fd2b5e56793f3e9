from __future__ import annotations

import pytest

from wootz.frontend.caffe.network import NetState, Phase, read_network
from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.passes.errors import InputError


def read(text: str):
    return read_network(parse_prototxt(text, "net"))


def test_v1_and_v2_give_the_same_layer() -> None:
    v1 = read("""layers { name: "c" type: CONVOLUTION bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2
        weight_decay: 1 weight_decay: 0 param: "w" convolution_param { num_output: 1 } }""").layers[0]
    v2 = read("""layer { name: "c" type: "Convolution" bottom: "x" top: "c"
        param { name: "w" lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        convolution_param { num_output: 1 } }""").layers[0]
    assert (v1.type, v1.bottoms, v1.tops, v1.specs) == (v2.type, v2.bottoms, v2.tops, v2.specs)
    assert v2.spec(1).lr_mult == 2
    assert v2.spec(7).decay_mult == 1


def test_layers_of_either_syntax_keep_their_order() -> None:
    network = read('layer { type: "Input" } layers { type: RELU } layer { type: "TanH" } layers { type: SIGMOID }')
    assert [layer.type for layer in network.layers] == ["Input", "ReLU", "TanH", "Sigmoid"]


@pytest.mark.parametrize(
    ("written", "name"),
    [("SOFTMAX_LOSS", "SoftmaxWithLoss"), ("4", "Convolution"), ("LRN", "LRN"), ("INNER_PRODUCT", "InnerProduct")],
)
def test_v1_types_are_translated(written, name) -> None:
    assert read(f"layers {{ type: {written} }}").layers[0].type == name


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ('input: "a" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4', (("a", (1, 2, 3, 4)),)),
        ('input: "a" input: "b" input_shape { dim: 5 } input_shape { dim: [6, 7] }', (("a", (5,)), ("b", (6, 7)))),
        ('input: "a" input: "b" input_shape { dim: 5 }', (("a", (5,)), ("b", (5,)))),
        ('input: "a" input: "b"', (("a", None), ("b", None))),
    ],
)
def test_declared_inputs(text, inputs) -> None:
    assert read(f'{text} layer {{ type: "ReLU" }}').inputs == inputs


@pytest.mark.parametrize(
    ("rules", "phase", "level", "stages", "kept"),
    [
        ("", "TEST", 0, (), True),
        ("include { phase: TEST }", "TEST", 0, (), True),
        ("include { phase: TRAIN }", "TEST", 0, (), False),
        ("exclude { phase: TEST }", "TEST", 0, (), False),
        ("exclude { phase: TEST stage: 'a' }", "TEST", 0, (), True),
        ("include { phase: TRAIN } include { stage: 'a' }", "TEST", 0, ("a",), True),
        ("include { stage: 'a' not_stage: 'b' }", "TEST", 0, ("a", "b"), False),
        ("include { min_level: 1 max_level: 2 }", "TEST", 2, (), True),
        ("include { min_level: 1 }", "TEST", 0, (), False),
    ],
)
def test_rules_choose_layers(rules, phase, level, stages, kept) -> None:
    layer = read(f'layer {{ type: "ReLU" {rules} }}').layers[0]
    assert layer.is_in(NetState(Phase[phase], level, stages)) is kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('item { name: "a" label: 1 }', "net:1:1: no layers: this is not the description of a network"),
        ('name: "a"', "net:1:1: no layers: this is not the description of a network"),
        ('leyer { type: "ReLU" }', "net:1:1: the network has a field 'leyer' that is not understood: did you mean"),
        ('layer { name: "a" }', "net:1:1: layer 'a' has no type"),
        ('layer { type: "ReLU" include { fase: TEST } }', "did you mean 'phase'?"),
        ('input: "a" input: "a" layer { type: "ReLU" }', "net:1:1: the input 'a' is declared twice"),
        ('input: "a" input: "b" input: "c" input_dim: [1, 1, 1, 1, 2, 2, 2, 2] layer { type: "ReLU" }', "but 2 shapes"),
        ('input: "a" input_dim: 1 layer { type: "ReLU" }', "1 input_dim for inputs of 4 dimensions"),
        (
            'layers { layer { name: "c" type: "conv" } bottom: "x" top: "c" }',
            "syntax of 2013, which isn't read: Caffe's",
        ),
        ("layer: 3", "net:1:1: layer takes a message in braces, not '3'"),
    ],
)
def test_faults_are_named_with_their_place(text, message) -> None:
    with pytest.raises(InputError) as error:
        read(text)
    assert message in str(error.value)


def test_fields_that_choose_an_implementation_have_no_effect() -> None:
    read("default_forward_type: FLOAT16 layer { type: 'ReLU' engine: 'MKLDNN' forward_type: FLOAT }")


def test_names_that_no_model_can_hold_are_replaced_and_noted() -> None:
    network = read(
        r"""name: "n\n" input: "" layer { type: "ReLU" bottom: "" top: "blob" }
        layer { name: "\000" type: "ReLU" bottom: "blob" top: "a\tb" }
        layer { name: "_" type: "ReLU" bottom: "a\tb" top: "a_b" } layer { type: "ReLU" bottom: "a\tb" top: "" }"""
    )
    assert network.name == "n_"
    assert [name for name, _ in network.inputs] == ["blob2"]
    assert [(layer.name, layer.bottoms, layer.tops) for layer in network.layers] == [
        ("blob", ("blob2",), ("blob",)),
        ("_2", ("blob",), ("a_b2",)),
        ("_", ("a_b2",), ("a_b",)),
        ("layer", ("a_b2",), ("blob2",)),
    ]
    assert (
        "net: the blob named '' is called 'blob2' in the model: a name has to have characters, all" in network.notes[0]
    )
    assert len(network.notes) == 4
