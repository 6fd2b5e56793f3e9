from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.errors import InputError
from wootz.passes.plan.transform import InputTransform
from wootz.passes.training.apply_optimizer import ApplyOptimizer
from wootz.passes.training.build_gradients import BuildGradients
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.training_mode import TrainingMode

EXAMPLES = Path(__file__).parents[3] / "examples"

IN_PLACE = """input: "data" input_dim: 10 input_dim: 3 input_dim: 6 input_dim: 6
    layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
            convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
    layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }
    layer { name: "scale" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
    layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }
    layer { name: "drop" type: "Dropout" bottom: "conv1" top: "conv1" }
    layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc" inner_product_param { num_output: 2 } }"""


def test_names_are_those_of_the_network(load) -> None:
    graph = load(IN_PLACE).model.graph
    assert [(n.op, n.name, n.outputs[0].name) for n in graph.nodes] == [
        ("Conv", "conv1", "conv1/conv1"),
        ("BatchNormalization", "bn", "conv1/scale"),
        ("Relu", "relu", "conv1"),
        ("Flatten", "fc/flatten", "fc/flatten"),
        ("Gemm", "fc", "fc"),
    ]
    constants = [name for name, t in graph.tensors().items() if hasattr(t, "values")]
    assert constants == [
        "conv1.weight",
        "conv1.bias",
        "bn.scale",
        "bn.bias",
        "bn.mean",
        "bn.variance",
        "fc.weight",
        "fc.bias",
    ]


def test_the_batch_is_symbolic(load, run, random) -> None:
    result = load(IN_PLACE)
    assert result.model.graph.inputs[0].shape == ["N", 3, 6, 6]
    assert result.model.graph.outputs[0].shape == ["N", 2]
    assert result.blobs["conv1"] == ("N", 4, 4, 4)
    x = random.normal(size=(5, 3, 6, 6)).astype(np.float32)
    (y,) = run(result, {"data": x}).values()
    single = [run(result, {"data": x[i : i + 1]})["fc"] for i in range(5)]
    np.testing.assert_allclose(y, np.concatenate(single), atol=1e-5)


def test_a_written_batch_size_stands_for_any(load, run, random) -> None:
    result = load("""input: "x" input_shape { dim: 4 dim: 6 }
        layer { name: "r" type: "Reshape" bottom: "x" top: "y" reshape_param { shape { dim: 4 dim: 2 dim: 3 } } }""")
    assert (result.blobs["y"], result.notes) == (("N", 2, 3), ())
    x = random.normal(size=(7, 6)).astype(np.float32)
    np.testing.assert_array_equal(run(result, {"x": x})["y"], x.reshape(7, 2, 3))


def test_a_network_for_one_batch_size_keeps_it_and_says_so(load) -> None:
    result = load("""input: "x" input_shape { dim: 4 dim: 6 }
        layer { name: "r" type: "Reshape" bottom: "x" top: "y" reshape_param { shape { dim: 2 dim: 12 } } }""")
    assert result.model.graph.inputs[0].shape == [4, 6]
    assert "the batch size is fixed as declared" in result.notes[0]


def test_an_input_that_is_overwritten_keeps_its_name(load) -> None:
    graph = load("""input: "x" input_shape { dim: 4 dim: 6 } layer { name: "r" type: "ReLU" bottom: "x" top: "x" }
        layer { name: "s" type: "Softmax" bottom: "x" top: "y" }""").model.graph
    assert [t.name for t in graph.inputs] == ["x"]
    assert graph.nodes[0].outputs[0].name == "x/r"


def test_an_output_that_is_an_input_gets_an_identity(load) -> None:
    result = load("""input: "x" input_shape { dim: 4 dim: 6 }
        layer { name: "d" type: "Dropout" bottom: "x" top: "y" }""")
    assert [(n.op, n.outputs[0].name) for n in result.model.graph.nodes] == [("Identity", "y")]


def test_shared_parameters_are_one_tensor(load) -> None:
    text = """input: "x" input_shape { dim: 1 dim: 4 }"""
    for name, bottom in (("a", "x"), ("b", "a")):
        text += f""" layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"
            param {{ name: "w" }} param {{ name: "b_{name}" }} inner_product_param {{ num_output: 4 }} }}"""
    first, second = load(text).model.graph.nodes
    assert first.inputs[1] is second.inputs[1]
    assert [first.inputs[1].name, second.inputs[2].name] == ["a.weight", "b.bias"]


TRAIN_VAL = """name: "net"
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
            transform_param { mirror: true crop_size: 8 mean_value: 104 mean_value: 117 mean_value: 123 }
            data_param { source: "train_lmdb" batch_size: 32 backend: LMDB } }
    layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
            transform_param { crop_size: 8 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 }
            data_param { source: "val_lmdb" batch_size: 50 backend: LMDB } }
    layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
            inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }
    layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }"""


def test_inference_does_without_losses_and_labels(load) -> None:
    result = load(TRAIN_VAL)
    graph = result.model.graph
    assert [(t.name, t.shape) for t in graph.inputs] == [("data", ["N", 3, 8, 8])]
    assert [t.name for t in graph.outputs] == ["fc"]
    assert [n.partition(" (")[0] for n in result.notes] == [
        "net.prototxt:11: layer 'accuracy'",
        "net.prototxt:12: layer 'loss'",
    ]


def test_transforms_of_both_phases(load) -> None:
    result = load(TRAIN_VAL)
    mean = (104.0, 117.0, 123.0)
    assert result.train_transform == InputTransform(mean, (1.0,), 8, mirror=True)
    assert result.test_transform == InputTransform(mean, (0.5,), 8, mirror=False)
    assert InputTransform.from_json(result.model.metadata["wootz.input"]) == result.test_transform


def test_training_has_the_loss_and_trains(load, run, random) -> None:
    result = load(TRAIN_VAL, phase="TRAIN")
    graph = result.model.graph
    assert [(t.name, t.dtype) for t in graph.inputs] == [("data", np.float32), ("label", np.int64)]
    assert [n.op for n in graph.nodes] == ["Flatten", "Gemm", "Dropout", "SoftmaxCrossEntropyLoss"]
    model = BuildGradients().apply(TrainingMode().apply(result.model).model).model
    trained = ApplyOptimizer(labels=("label",)).apply(model).model
    interface = TrainingInterface.of(trained)
    assert (interface.data, interface.labels, interface.losses) == ("data", "label", ("loss",))
    assert {s.input for s in interface.slots if s.kind == "parameter"} == {"fc.weight", "fc.bias"}


def test_layers_that_prepare_labels_go_with_the_loss(load) -> None:
    result = load("""layer { name: "data" type: "Data" top: "data" top: "label"
            transform_param { crop_size: 8 } data_param { batch_size: 2 } }
        layer { name: "one" type: "Slice" bottom: "label" top: "a" top: "b" slice_param { axis: 0 } }
        layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 2 } }
        layer { name: "loss" type: "ContrastiveLoss" bottom: "fc" bottom: "a" bottom: "b" top: "loss" }""")
    assert [n.op for n in result.model.graph.nodes] == ["Flatten", "Gemm"]


def test_a_second_stream_of_data_stays(load) -> None:
    result = load("""layer { name: "data" type: "DummyData" top: "a" top: "b"
                dummy_data_param { shape { dim: [1, 2] } } }
        layer { name: "r" type: "ReLU" bottom: "b" top: "r" }
        layer { name: "s" type: "Eltwise" bottom: "a" bottom: "r" top: "s" }
        layer { name: "l" type: "HingeLoss" bottom: "s" bottom: "b" top: "l" }""")
    assert [n.op for n in result.model.graph.nodes] == ["Relu", "Add"]


def test_a_loss_in_python_is_left_out(load) -> None:
    result = load("""input: "x" input_shape { dim: 1 dim: 3 } layer { name: "s" type: "Softmax" bottom: "x" top: "y" }
        layer { name: "l" type: "Python" bottom: "y" top: "l" loss_weight: 1 python_param { layer: "Mine" } }""")
    assert [t.name for t in result.model.graph.outputs] == ["y"]


def test_the_raw_head_of_a_detector_is_the_output(load) -> None:
    result = load("""input: "x" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 1 } }
        layer { name: "d" type: "Yolov3DetectionOutput" bottom: "c" top: "d"
                yolov3_detection_output_param { num_classes: 2 } }""")
    assert [t.name for t in result.model.graph.outputs] == ["c"]
    assert "layer 'd' (Yolov3DetectionOutput) is left out" in result.notes[0]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ('type: "MemoryData" memory_data_param { batch_size: 1 channels: 2 height: 4 width: 5 }', ["N", 2, 4, 5]),
        ('type: "ImageData" image_data_param { source: "list" new_height: 4 new_width: 5 }', ["N", 3, 4, 5]),
        ('type: "ImageData" image_data_param { new_height: 4 new_width: 5 is_color: false }', ["N", 1, 4, 5]),
        ('type: "DummyData" dummy_data_param { num: 1 channels: 2 height: 4 width: 5 }', ["N", 2, 4, 5]),
        ('type: "DummyData" dummy_data_param { shape { dim: [1, 2, 4, 5] } }', ["N", 2, 4, 5]),
        ('type: "Input" input_param { shape { dim: [7, 2] } }', ["N", 2]),
        ('type: "Data" transform_param { crop_size: 4 } data_param { batch_size: 1 }', ["N", 3, 4, 4]),
    ],
)
def test_data_layers_give_the_shape_of_the_input(load, layer, shape) -> None:
    tops = 'top: "x"' if "Input" in layer or "Dummy" in layer else 'top: "x" top: "label"'
    result = load(f"""layer {{ name: "d" {layer} {tops} }} layer {{ name: "r" type: "ReLU" bottom: "x" top: "y" }}""")
    assert [t.shape for t in result.model.graph.inputs] == [shape]


def test_a_shape_that_is_in_the_data_can_be_given(load) -> None:
    text = """layer { name: "d" type: "HDF5Data" top: "x" hdf5_data_param { source: "list" batch_size: 2 } }
        layer { name: "r" type: "ReLU" bottom: "x" top: "y" }"""
    with pytest.raises(InputError, match=r"the shape of 'x' is in the data, not in the network: give it \(--input-"):
        load(text)
    assert load(text, x=(1, 3, 4, 4)).model.graph.inputs[0].shape == ["N", 3, 4, 4]
    with pytest.raises(InputError, match="a shape is given for 'z', which is no input of the network"):
        load(text, z=(1,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'layer { name: "r" type: "ReLU" bottom: "z" top: "y" }',
            "2:32: layer 'r' (ReLU): no layer and no input",
        ),
        (
            """layer { name: "a" type: "ReLU" bottom: "b" top: "a" }
            layer { name: "b" type: "ReLU" bottom: "a" top: "b" }""",
            "its bottom 'b' is made by the later layer 'b': layers have to stand in order of data flow",
        ),
        (
            """layer { name: "a" type: "ReLU" bottom: "x" top: "y" }
            layer { name: "b" type: "TanH" bottom: "x" top: "y" }""",
            "the blob 'y' is made by a layer before it too",
        ),
        (
            'layer { name: "r" type: "RelU" bottom: "x" top: "y" }',
            "layers of this type are not understood: did",
        ),
        ('layer { name: "r" type: "Python" bottom: "x" top: "y" }', "(Python): the Python code of '' has no ONNX"),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "y" magic_param { a: 1 } }',
            "2:53: layer 'r' has a field 'magic_param' that is not understood",
        ),
        ('layer { name: "s" type: "Silence" bottom: "x" }', "no layer of the network makes an output"),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "y" top: "z" }',
            "it has 2 tops where 1 are known",
        ),
        (
            """layer { name: "f" type: "InnerProduct" bottom: "x" top: "y"
                inner_product_param { num_output: 2147483647 } }""",
            "its weight of shape 2147483647×18 would start from its filler: up to",
        ),
        (
            """layer { name: "f" type: "InnerProduct" bottom: "x" top: "y"
                inner_product_param { num_output: 2 weight_filler { type: "magic" } } }""",
            "weight: no filler of type 'magic'",
        ),
    ],
)
def test_faults_are_named_with_their_place(load, text, message) -> None:
    with pytest.raises(InputError) as error:
        load(f'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n{text}')
    assert message in str(error.value)
    assert str(error.value).startswith("net.prototxt:")


def test_parameters_of_another_type_are_noted(load) -> None:
    result = load("""input: "x" input_shape { dim: 1 dim: 3 }
        layer { name: "s" type: "Softmax" bottom: "x" top: "y" pooling_param { kernel_size: 2 } }""")
    assert result.notes == ("net.prototxt:2: layer 's' (Softmax): pooling_param has no effect on a layer of this type",)


@pytest.mark.parametrize("name", ["digits", "flowers"])
def test_the_examples_have_their_modules(name) -> None:
    result = import_caffe(EXAMPLES / name / "net.prototxt", seed=3)
    modules = result.model.modules
    assert [m.entry for m in modules[1:]] == [m.exit for m in modules[:-1]]
    assert {layer.partition("_")[0] for layer in result.initialised} >= {"conv1", "bn", "scale"}


def test_the_seed_decides_what_fillers_give() -> None:
    file = EXAMPLES / "digits" / "net.prototxt"
    first, again, other = (import_caffe(file, seed=s).model.graph.tensors()["conv1.weight"].values for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_multipliers_are_stored(load) -> None:
    result = load("""input: "x" input_shape { dim: 1 dim: 3 }
        layer { name: "f" type: "InnerProduct" bottom: "x" top: "y"
                param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } inner_product_param { num_output: 2 } }""")
    assert json.loads(result.model.metadata["wootz.multipliers"]) == {"f.bias": [2.0, 0.0]}


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("include { phase: TRAIN }", "--phase TRAIN"),
        ('include { stage: "train" }', "--stage train"),
        ('include { phase: TRAIN stage: "a" stage: "b" }', "--phase TRAIN --stage a --stage b"),
        ("include { min_level: 2 }", "--level 2"),
        ("include { phase: TRAIN } include { phase: TEST stage: 'a' }", "--phase TRAIN"),
        ("exclude { phase: TEST }", "another --phase or --stage"),
    ],
)
def test_a_blob_of_a_layer_that_is_left_out_names_the_options(load, rule, options) -> None:
    with pytest.raises(InputError) as error:
        load(f"""layer {{ name: "d" type: "Data" top: "data" {rule} }}
            layer {{ name: "r" type: "ReLU" bottom: "data" top: "r" }}""")
    assert f"its bottom 'data' is made by a layer that the network's rules leave out here: give {options}" in str(
        error.value
    )


def test_of_several_layers_left_out_the_one_of_the_phase_is_named(load) -> None:
    with pytest.raises(InputError, match="leave out here: give --stage test-on-train"):
        load("""layer { name: "d" type: "Data" top: "data" include { phase: TRAIN } }
            layer { name: "d" type: "Data" top: "data" include { phase: TEST stage: "test-on-train" } }
            layer { name: "d" type: "Data" top: "data" include { phase: TRAIN } }
            layer { name: "r" type: "ReLU" bottom: "data" top: "r" }""")


def test_a_network_that_ends_in_silence_says_so(load) -> None:
    with pytest.raises(InputError, match=r"layer 's' .*all that the network computes ends in Silence: remove it"):
        load("""input: "x" input_shape { dim: 2 } layer { name: "r" type: "ReLU" bottom: "x" top: "y" }
            layer { name: "s" type: "Silence" bottom: "y" }""")


def test_an_input_without_a_shape_adds_nothing_to_a_layer_of_its_name(load) -> None:
    layers = 'layer { name: "r" type: "ReLU" bottom: "data" top: "y" }'
    shaped = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }'
    assert load(f'input: "data" {shaped} {layers}').blobs == {"data": ("N", 3), "y": ("N", 3)}
    assert load(f'input: "data" {layers}', data=(1, 5)).blobs["y"] == ("N", 5)
    with pytest.raises(InputError, match=r"give it \(--input-shape data=1,3,H,W\)"):
        load(f'input: "data" {layers}')
    with pytest.raises(InputError, match="the blob 'data' is an input of another shape too"):
        load(f'input: "data" input_shape {{ dim: 1 dim: 4 }} {shaped} {layers}')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n",
            "a Git LFS pointer, not the file",
        ),
        (b"\n<!DOCTYPE html>\n<html lang='en'>", "a web page, not the file itself: download the raw file"),
    ],
)
def test_what_is_downloaded_in_the_place_of_a_file(tmp_path, content, message) -> None:
    file, net = tmp_path / "net.prototxt", tmp_path / "good.prototxt"
    net.write_text('input: "x" input_shape { dim: 2 } layer { name: "r" type: "ReLU" bottom: "x" top: "y" }')
    for name in ("net.prototxt", "net.caffemodel"):
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            import_caffe(file) if file.suffix == ".prototxt" else import_caffe(net, file)
        assert str(error.value).startswith(f"{file}: ")


def test_a_layer_that_computes_is_no_input(load) -> None:
    with pytest.raises(InputError, match=r"layer 's' \(Softmax\): it has no bottom to compute from"):
        load('input: "x" input_shape { dim: [1, 2] } layer { name: "s" type: "Softmax" top: "y" }')


def test_fields_of_forks_that_change_nothing_are_noted(load) -> None:
    network = load("""bn_stats_batch_size: 32 multinode { model_parallel { layer_from: "a" } }
        input: "x" input_shape { dim: [2, 3, 4, 4] }
        layer { name: "b" type: "BatchNorm" bottom: "x" top: "y" multinode { num_nodes: 2 }
          batch_norm_param { filler { value: 2 } bias_filler { value: 1 } } }""")
    assert [note.split(": ")[1].split()[0] for note in network.notes] == ["bn_stats_batch_size", "multinode"]
    parameters = {name: t.values for name, t in network.model.graph.tensors().items() if name.startswith("b.")}
    assert (parameters["b.scale"].tolist(), parameters["b.bias"].tolist()) == ([2] * 3, [1] * 3)


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        ('type: "Relu6"', "did you mean 'ReLU6'?"),
        ('type: "Convolutoin"', "did you mean 'Convolution'?"),
        ('type: "Flat"', "docs/caffe-layers.md lists what is"),
        ('type: "Magic"', "docs/caffe-layers.md lists what is"),
        ('type: "BatchNorm" batch_norm_param { bias: 1 }', "remove it if it can't change the result"),
        ('type: "Convolution" convolution_param { num_outputs: 1 }', "did you mean 'num_output'?"),
    ],
)
def test_a_word_is_only_suggested_where_it_may_be_meant(load, layer, hint) -> None:
    with pytest.raises(InputError) as error:
        load(f'input: "x" input_shape {{ dim: [2, 3, 4, 4] }} layer {{ name: "l" bottom: "x" top: "y" {layer} }}')
    assert hint in str(error.value)


def test_what_reads_a_loss_goes_with_it(load) -> None:
    """R-FCN's training networks add up losses of a region before they choose regions by them."""
    result = load("""input: "x" input_shape { dim: [2, 3] } input: "labels" input_shape { dim: 2 }
        layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 2 } }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "f" bottom: "labels" top: "l" }
        layer { name: "e" type: "Eltwise" bottom: "l" bottom: "l" top: "e" }
        layer { name: "p" type: "Power" bottom: "e" top: "e" }
        layer { name: "s" type: "Softmax" bottom: "f" top: "l" }""")
    assert [t.name for t in result.model.graph.outputs] == ["l"]
    assert [n.op for n in result.model.graph.nodes] == ["Gemm", "Softmax"]
    left_out = [note for note in result.notes if "is left out: inference doesn't need it" in note]
    assert [note.split("'")[1] for note in left_out] == ["l", "e", "p"]


def test_there_are_as_many_labels_as_images(load) -> None:
    """Caffe's own examples leave the size of images to the data, but not the batch."""
    network = """layer { name: "d" type: "Data" top: "x" top: "labels" data_param { batch_size: 64 } }
        layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 2 } }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "f" bottom: "labels" top: "l" }"""
    result = load(network, phase="TRAIN", x=(1, 3, 8, 8))
    assert result.blobs["labels"] == (result.blobs["x"][0],)


def test_training_needs_what_its_losses_read(load) -> None:
    with pytest.raises(InputError, match="makes its bottom 'a'"):
        load(
            """input: "x" input_shape { dim: [2, 3] } input: "labels" input_shape { dim: 2 }
            layer { name: "a" type: "Accuracy" bottom: "x" bottom: "labels" top: "a" }
            layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "a" top: "l" }""",
            phase="TRAIN",
        )
