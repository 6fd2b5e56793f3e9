"""A Caffe network for training, with its loss, trained as it is."""

import numpy as np

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.plan.solver import Solver
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.session import Device, TrainingSession

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 8 dim: 1 dim: 4 dim: 4 } shape { dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_the_loss_of_the_prototxt_falls(tmp_path):
    (tmp_path / "train.prototxt").write_text(NET)
    network = import_caffe(tmp_path / "train.prototxt", phase="TRAIN").model
    graph = build_training_graph(network, Solver(base_lr=0.1), loss=None, labels="label")
    session = TrainingSession(graph, Device(threads=1))
    labels = np.arange(12) % 3
    data = np.random.default_rng(0).normal(size=(12, 1, 4, 4)).astype(np.float32) + labels[:, None, None, None]
    losses = [session.step(data, labels, 0.1)[0] for _ in range(40)]
    assert losses[0] > 0.8
    assert losses[-1] < 0.3 * losses[0]
