"""Caffe's files: networks, their weights in three formats, solvers."""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path

import h5py
import numpy as np
from driver import BYTE_MUTATIONS, TEXT_MUTATIONS, Reader

from wootz.frontend.caffe.caffemodel import read_mean
from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.caffe.layers.table import LAYERS
from wootz.frontend.caffe.schema import field_types
from wootz.frontend.caffe.solver import read_solver, solver_notes
from wootz.passes.errors import WootzError

IMAGE = 'input: "x" input_shape { dim: 1 dim: 4 dim: 8 dim: 8 }'
CLASSIFIER = f"""name: "n" {IMAGE} state {{ level: 1 }}
layer {{ name: "d" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ crop_size: 8 mean_value: 104 mirror: true scale: 0.01 }} data_param {{ batch_size: 2 }} }}
layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" module: "m" param {{ lr_mult: 2 }}
  convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 group: 2 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "c" top: "c" batch_norm_param {{ eps: 1e-5 }} }}
layer {{ name: "s" type: "Scale" bottom: "c" top: "c" scale_param {{ bias_term: true }} }}
layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }}
layer {{ name: "e" type: "Eltwise" bottom: "x" bottom: "c" top: "e" eltwise_param {{ coeff: 1 coeff: -0.5 }} }}
layer {{ name: "p" type: "Pooling" bottom: "e" top: "p" pooling_param {{ pool: AVE kernel_size: 3 stride: 2 pad: 1 }} }}
layer {{ name: "l" type: "LRN" bottom: "p" top: "l" lrn_param {{ local_size: 3 alpha: 0.1 }} }}
layer {{ name: "f" type: "InnerProduct" bottom: "l" top: "f" inner_product_param {{ num_output: 3 }} }}
layer {{ name: "o" type: "Softmax" bottom: "f" top: "o" }}
layer {{ name: "a" type: "Accuracy" bottom: "f" bottom: "label" top: "a" include {{ phase: TEST not_stage: "z" }} }}
"""
DETECTOR = f"""{IMAGE} input: "i" input_shape {{ dim: 1 dim: 3 dim: 32 dim: 32 }}
input: "info" input_shape {{ dim: 1 dim: 3 }}
layer {{ name: "p" type: "PriorBox" bottom: "x" bottom: "i" top: "p"
  prior_box_param {{ min_size: 8 max_size: 12 aspect_ratio: 2 variance: 0.1 step: 4 }} }}
layer {{ name: "l" type: "Convolution" bottom: "x" top: "l" convolution_param {{ num_output: 16 kernel_size: 1 }} }}
layer {{ name: "t" type: "Permute" bottom: "l" top: "t" permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "f" type: "Flatten" bottom: "t" top: "f" flatten_param {{ axis: 1 }} }}
layer {{ name: "c" type: "Slice" bottom: "f" top: "c1" top: "c2" slice_param {{ slice_point: 512 }} }}
layer {{ name: "d" type: "DetectionOutput" bottom: "f" bottom: "c1" bottom: "p" top: "d"
  detection_output_param {{ num_classes: 2 nms_param {{ nms_threshold: 0.4 top_k: 9 }} keep_top_k: 5 }} }}
layer {{ name: "s" type: "Convolution" bottom: "x" top: "s" convolution_param {{ num_output: 18 kernel_size: 1 }} }}
layer {{ name: "b" type: "Convolution" bottom: "x" top: "b" convolution_param {{ num_output: 36 kernel_size: 1 }} }}
layer {{ name: "q" type: "Python" bottom: "s" bottom: "b" bottom: "info" top: "rois"
  python_param {{ module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 16" }} }}
layer {{ name: "g" type: "ROIPooling" bottom: "x" bottom: "rois" top: "g"
  roi_pooling_param {{ pooled_h: 2 pooled_w: 2 }} }}
"""
SEQUENCE = """input: "x" input_shape { dim: 4 dim: 3 dim: 5 } input: "cont" input_shape { dim: 4 dim: 3 }
layer { name: "r" type: "LSTM" bottom: "x" bottom: "cont" top: "r" recurrent_param { num_output: 2 } }
layer { name: "s" type: "Reshape" bottom: "r" top: "s" reshape_param { shape { dim: 0 dim: -1 dim: 1 } } }
layer { name: "t" type: "Tile" bottom: "s" top: "t" tile_param { axis: 2 tiles: 3 } }
layer { name: "k" type: "Concat" bottom: "s" bottom: "t" top: "k" concat_param { axis: 2 } }
layer { name: "m" type: "Reduction" bottom: "k" top: "m" reduction_param { operation: MEAN axis: 1 } }
"""
V1 = f"""{IMAGE}
layers {{ name: "c" type: CONVOLUTION bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param {{ num_output: 2 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layers {{ name: "r" type: RELU bottom: "c" top: "c" }}"""
NETWORKS = (CLASSIFIER, DETECTOR, SEQUENCE, V1)
FOR_WEIGHTS = f"""{IMAGE} layer {{ name: "c" type: "Convolution" bottom: "x" top: "c"
  convolution_param {{ num_output: 2 kernel_size: 1 }} }}"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "multistep" gamma: 0.1 stepvalue: 10 stepvalue: 20 max_iter: 30
momentum: 0.9 weight_decay: 1e-4 regularization_type: "L2" type: "SGD" iter_size: 2 clip_gradients: 35 snapshot: 10
test_iter: 5 test_interval: 10 random_seed: 1 average_loss: 20 display: 10 solver_mode: GPU
"""


def add_layer(chance: random.Random, content: bytes) -> bytes:
    """Another layer of any type, on some blobs, with some of its fields."""
    kind = chance.choice(sorted(LAYERS))
    fields = ""
    if LAYERS[kind].schema is not None:
        names = chance.sample(sorted(field_types(LAYERS[kind].schema)), k=min(3, len(field_types(LAYERS[kind].schema))))
        values = ("0", "1", "2", "3", "-1", "0.5", "7", "1e309", "true", '"a"', "{ dim: 2 }", "MAX", "65536")
        fields = f"{LAYERS[kind].fields[0]} {{ {' '.join(f'{name}: {chance.choice(values)}' for name in names)} }}"
    bottoms = " ".join(f'bottom: "{chance.choice(("x", "c", "f", "t", "i", "r", "info", "cont"))}"' for _ in range(2))
    bottoms = bottoms if chance.random() < 0.5 else bottoms[: len(bottoms) // 2 + 1]
    layer = f'layer {{ name: "z" type: "{kind}" {bottoms} top: "{chance.choice(("y", "x", "c"))}" {fields} }}\n'
    return content + layer.encode()


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


def _message(tag: int, content: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(content)) + content


def _blob(shape: tuple[int, ...], tag: int = 5, dtype: str = "<f4") -> bytes:
    values = np.ones(shape, dtype).tobytes()
    return _message(7, _message(1, b"".join(map(_varint, shape)))) + _message(tag, values)


def _caffemodel(layer: int, name: int, blobs: int) -> bytes:
    weight, bias = _message(blobs, _blob((2, 4, 1, 1))), _message(blobs, _blob((2,), 8, "<f8"))
    return _message(1, b"net") + _message(layer, _message(name, b"c") + weight + bias)


def _hdf5(**options: object) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        group = file.create_group("data/c")
        group.create_dataset("0", data=np.ones((2, 4, 1, 1), np.float32), **options)
        group.create_dataset("1", data=np.ones(2, np.float32))
    return content.getvalue()


def _read_weights(file: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as network:
        network.write(FOR_WEIGHTS)
        network.flush()
        import_caffe(Path(network.name), file)


def _read_network(file: Path) -> None:
    for phase in ("TEST", "TRAIN"):
        try:
            import_caffe(file, phase=phase).model.to_proto()
        except WootzError:
            if phase == "TEST":
                raise


def _read_solver(file: Path) -> None:
    read_solver(file)
    solver_notes(file)


READERS = (
    Reader(
        "prototxt",
        _read_network,
        "net.prototxt",
        [text.encode() for text in NETWORKS],
        (add_layer, *TEXT_MUTATIONS, *TEXT_MUTATIONS),
    ),
    Reader("solver", _read_solver, "solver.prototxt", [SOLVER.encode()], TEXT_MUTATIONS),
    Reader(
        "caffemodel", _read_weights, "net.caffemodel", [_caffemodel(100, 1, 7), _caffemodel(2, 4, 6)], BYTE_MUTATIONS
    ),
    Reader("mean", read_mean, "mean.binaryproto", [_blob((1, 3, 2, 2))], BYTE_MUTATIONS),
    Reader("hdf5", _read_weights, "net.caffemodel.h5", [_hdf5(), _hdf5(compression="gzip")], BYTE_MUTATIONS),
)
