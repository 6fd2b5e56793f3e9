"""A network and a data set that it learns in a few steps."""

from pathlib import Path

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.runtime.dataset import Split

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""


@pytest.fixture
def prototxt():
    return NET


@pytest.fixture
def network(tmp_path, prototxt):
    (tmp_path / "net.prototxt").write_text(prototxt)
    return import_caffe(Path(tmp_path / "net.prototxt")).model


@pytest.fixture
def split():
    """Two classes that differ in brightness."""
    generator = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = generator.integers(0, 100, (64, 2, 4, 4)) + 100 * labels[:, None, None, None]
    return Split((images / 100 - 1).astype(np.float32), labels.astype(np.int64))
