"""The running statistics of a network that was assembled from blocks, measured anew without training.

A trained network's statistics are those of the images that it was trained on, as they were cropped and padded then, and
of its last steps. A few other images give others: measured with them, the statistics of a full ResNet-20 cost it three
points of accuracy. What is measured of an assembled network is therefore compared to what the same images give in the
full network, whose own statistics are known:

    mean      =  measured mean + (full network's mean - full network's measured mean)
    variance  =  measured variance · (full network's variance / full network's measured variance)

Where pruning changed nothing, nothing changes. Of layers that share their statistics (a module that is called several
times), what is measured is the mean of what each of them measures, which is what their running statistics come to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wootz.passes.ir.model import Model, Node, constants, with_weights
from wootz.passes.plan.transform import InputTransform
from wootz.passes.training.batch_statistics import batch_statistics
from wootz.passes.training.legalize import Target
from wootz.passes.training.training_mode import BATCH_MEAN, BATCH_VARIANCE
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.inputs import Data
from wootz.runtime.session import Device, MergedSession

CALIBRATION_IMAGES = 256
CALIBRATION_BATCH = 128
EPSILON = 1e-5
"""ONNX's default of BatchNormalization."""

Statistics = Mapping[str, np.ndarray]
"""Means and variances of channels, float32, under the names of the running ones."""


def calibration_batches(split: Split, transform: InputTransform) -> Iterator[Data]:
    """`CALIBRATION_IMAGES` of `split`, or all, as the network takes them, cropped in the centre.

    They are spread evenly, and so is each batch: images that are sorted by class are mixed in it.
    """
    chosen = split.spread(CALIBRATION_IMAGES)
    count = -(-len(chosen) // CALIBRATION_BATCH)
    for first in range(count):
        (batch,) = ordered_batches(split.part(chosen[first::count]), transform, CALIBRATION_BATCH)
        yield batch.data


def measured_statistics(
    models: Sequence[Model], split: Split, transform: InputTransform, device: Device, target: Target = "onnx"
) -> list[Statistics]:
    """Of each model, mean and population variance of what its BatchNormalizations see of `calibration_batches`.

    All layers are measured in one pass, in which each normalises by the statistics of the batch, as in training. What
    is measured of batches is put together as the moments of all their images.
    """
    layers = {number: found for number, model in enumerate(models) if (found := _layers(model))}
    if not layers:
        return [{} for _ in models]
    session = MergedSession([batch_statistics(models[number], target) for number in layers], device)
    moments = {number: {layer.outputs[0].name: _Moments() for layer in found} for number, found in layers.items()}
    for data in calibration_batches(split, transform):
        for number, measured in zip(layers, session.outputs(data), strict=True):
            for output, of_layer in moments[number].items():
                of_layer.add(measured[output + BATCH_MEAN], measured[output + BATCH_VARIANCE], len(data))
    return [_by_name(layers.get(number, []), moments.get(number, {})) for number in range(len(models))]


def _by_name(layers: Iterable[Node], moments: Mapping[str, _Moments]) -> Statistics:
    """Statistics under the names of the running ones, of the moments by the layers' outputs."""
    seen: dict[str, list[np.ndarray]] = {}
    for layer in layers:
        for name, values in zip(_statistics(layer), moments[layer.outputs[0].name].statistics(), strict=True):
            seen.setdefault(name, []).append(values)
    return {name: np.mean(of_layers, axis=0).astype(np.float32) for name, of_layers in seen.items()}


def running_statistics(model: Model) -> Statistics:
    """Those that its BatchNormalizations have."""
    known = constants(model.graph)
    return {name: known[name] for layer in _layers(model) for name in _statistics(layer)}


def offsets(model: Model, measured: Statistics) -> Statistics:
    """What a full network's running statistics have beyond those measured: of a mean the difference, of a variance the
    ratio, the layer's epsilon included in both."""
    running = running_statistics(model)
    found = {}
    for layer in _layers(model):
        mean, variance = _statistics(layer)
        epsilon = layer.attrs.get("epsilon", EPSILON)
        found[mean] = running[mean] - measured[mean]
        found[variance] = (running[variance] + epsilon) / (measured[variance] + epsilon)
    return found


def recalibrated(model: Model, measured: Statistics, beyond: Statistics) -> Model:
    """`model` with the statistics that were `measured` of it, and `beyond` these the `offsets` of the full network in
    the channels that `model` has; other names are not looked at."""
    weights = {}
    for layer in _layers(model):
        mean, variance = _statistics(layer)
        epsilon = layer.attrs.get("epsilon", EPSILON)
        weights[mean] = measured[mean] + beyond[mean]
        weights[variance] = np.maximum((measured[variance] + epsilon) * beyond[variance] - epsilon, np.float32(0))
    return with_weights(model, weights)


def _layers(model: Model) -> list[Node]:
    return [node for node in model.graph.nodes if node.op == "BatchNormalization"]


def _statistics(layer: Node) -> tuple[str, str]:
    """The names of its running mean and variance."""
    mean, variance = layer.inputs[3:5]
    return mean.name, variance.name


@dataclass
class _Moments:
    """Sums over images: their number, the mean of each channel and the mean of its squares."""

    images: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(1))
    square: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def add(self, mean: np.ndarray, variance: np.ndarray, images: int) -> None:
        """Of a batch of so many images, all of one size."""
        mean, variance = mean.astype(np.float64), variance.astype(np.float64)
        self.images += images
        self.mean = self.mean + images * mean
        self.square = self.square + images * (variance + mean**2)

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and population variance over all images."""
        mean = self.mean / self.images
        return mean, np.maximum(self.square / self.images - mean**2, 0)
