"""Names and tables that the training passes agree on: losses, gradients, state and its multipliers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wootz.passes.base import Pass
from wootz.passes.ir.model import MULTIPLIERS_KEY, Constant, Graph, Model, Tensor
from wootz.passes.metadata import read_metadata

GRADIENT_SUFFIX = ".grad"
"""`<parameter>.grad` is the graph output with the gradient of `<parameter>`."""

NEW_SUFFIX = ".new"
"""`<name>.new` is the graph output with the value of the state tensor `<name>` after the step."""

SEED_PREFIX = "grad/"
"""`grad/<loss>` is the constant 1 from which the gradients of a loss are computed: its gradient by itself."""


def gradient_seed(graph: Graph, loss: str) -> Constant | None:
    """The constant that the gradients of `loss` begin with."""
    seed = graph.tensors().get(SEED_PREFIX + loss)
    return seed if isinstance(seed, Constant) else None


def loss_outputs(graph: Graph, names: tuple[str, ...], asking: Pass) -> list[Tensor]:
    """The outputs called `names`, or all scalar ones that are neither gradient nor state."""
    outputs = {t.name: t for t in graph.outputs if not t.name.endswith((GRADIENT_SUFFIX, NEW_SUFFIX))}
    for name in names:
        if name not in outputs:
            raise asking.refuse(f"no output named {name!r} (outputs: {', '.join(outputs) or 'none'})")
    losses = [outputs[n] for n in names] or [t for t in outputs.values() if _is_scalar(t)]
    if not losses:
        raise asking.refuse("no scalar output to minimise: run attach-loss first")
    for loss in losses:
        if not _is_scalar(loss):
            raise asking.refuse(f"a loss must be a scalar, this output has shape {loss.shape}", loss.name)
    return losses


def multipliers(model: Model) -> Mapping[str, tuple[float, float]]:
    """Parameter -> (lr_mult, decay_mult), where these are not 1."""
    table: dict[str, tuple[float, float]] = read_metadata(
        model.metadata, MULTIPLIERS_KEY, dict[str, tuple[float, float]], "{}"
    )
    return table


def _is_scalar(tensor: Tensor) -> bool:
    is_float = tensor.dtype is not None and np.dtype(tensor.dtype).kind == "f"
    return is_float and tensor.shape is not None and len(tensor.shape) == 0
