"""The last layer of a network, brought to the number of classes in the data."""

from __future__ import annotations

from dataclasses import replace

from wootz.passes.errors import WootzError
from wootz.passes.ir.model import tensor_shape
from wootz.passes.transforms.replace_head import replace_head
from wootz.tools.models import TrainableNetwork


def fit_head(network: TrainableNetwork, classes: int, new_head: bool | None, seed: int) -> TrainableNetwork:
    """A classifier for `classes` classes; a new last layer is among those that are `initialised`.

    There is one where the network tells another number apart, or `new_head` says so; never where that is False. Raises
    WootzError for a network whose last layer can't be replaced.
    """
    shape = tensor_shape(network.model.graph.outputs[0]) or ()
    fits = shape[1:2] == (classes,)
    if new_head is False or (fits and not new_head):
        return network
    try:
        head = replace_head(network.model, classes, seed=seed)
    except WootzError as error:
        if fits:
            raise
        raise WootzError(
            f"the network is not for the {classes} classes of the data, and has no new head: {error}"
        ) from error
    reason = "--new-head" if fits else f"The data have {classes} classes, the network {head.before}"
    note = f"{reason}: the last layer {head.layer!r} starts anew, and the full network is trained first."
    if head.was_sigmoid:
        note += " The Sigmoid behind it is now a Softmax, since each image has one class."
    return replace(
        network,
        model=head.model,
        initialised=tuple(dict.fromkeys((*network.initialised, head.layer))),
        notes=(*network.notes, note),
    )
