"""Assembly: puts the weights of blocks, or of a whole network, into a model of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Constant, Model


def with_weights(model: Model, weights: Mapping[str, np.ndarray]) -> Model:
    """`model` with the constants named in `weights` replaced; the others stay.

    Raises WootzError when a name is not a constant of the model, or has another shape there.
    """
    graph = model.graph.copy()
    tensors = graph.tensors()
    for name, values in weights.items():
        tensor = tensors.get(name)
        if not isinstance(tensor, Constant):
            raise WootzError(f"{name}: the network has no weight of that name")
        if tuple(tensor.shape) != values.shape:
            raise WootzError(f"{name}: shape {values.shape} does not fit the network's {tuple(tensor.shape)}")
        tensor.values = values
    return replace(model, graph=graph)
