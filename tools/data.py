"""Opens the data set of a run: options, and what the network says of its input, decide how photographs are resized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wootz.frontend.caffe.importer import ImportedNetwork
from wootz.passes.errors import InputError
from wootz.passes.ir.model import tensor_shape
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform, Resize, Units
from wootz.passes.transforms.image_classifier import gives_a_number
from wootz.runtime.data.dataset import Dataset, Targets
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.data.resizing import resized_transforms
from wootz.runtime.inputs import Inputs, are_images, inputs_of_network
from wootz.tools.decoding_bar import DecodingBar

Transforms = tuple[InputTransform, InputTransform]
"""For training, and for testing."""
POSITIONS = 2
"""Axes of targets beyond which they have some for places in the image, or for boxes."""


def open_data(
    location: str,
    network: ImportedNetwork,
    transforms: Transforms,
    options: Mapping[str, Any],
    given: Any = None,
) -> tuple[Dataset, Transforms]:
    """The data set at `location`, or what Python code has `given`, for a network, and its transforms with what is
    cropped and mirrored.

    Training mirrors photographs that it crops at random, unless --no-mirror says otherwise; never where other inputs,
    or targets with positions, would no longer fit.
    """
    inputs = inputs_of_network(network.model)
    shape = inputs[0].shape
    dataset = load_dataset(
        location,
        shape,
        crop_size=transforms[0].crop_size if transforms[0].resize == "squash" else 0,
        seed=options["seed"],
        classes=options["classes"],
        outputs=_outputs(network),
        resize=options["resize"] or _default_resize(network, shape),
        cache=options["cache"],
        listener=DecodingBar(),
        resizes_all=options["resize"] is not None,
        given=given,
        inputs=inputs,
        are_numbers=gives_a_number(network.model) and not options["new_head"],
    )
    if _have_positions(dataset.train.labels) or not are_images(inputs):
        dataset, transforms = _as_they_are(dataset, transforms, shape, location)
    if dataset.resizing is None:
        if options["resize"]:
            raise InputError("--resize is for photographs: arrays are taken as they are", location)
        units: Units = "as given" if dataset.numbers == "as given" else "0-255"
        train, test = (replace(transform, units=units) for transform in transforms)
        return dataset, (train, test)
    channels, height, width = shape
    train, test = resized_transforms(transforms, dataset.resizing, (channels, height, width))
    if train.least_area < 1 and options["mirror"] is None:
        train = replace(train, mirror=True)
    return dataset, (train, test)


def _have_positions(targets: Targets | None) -> bool:
    arrays = targets.values() if isinstance(targets, Mapping) else (targets,)
    return any(array is not None and array.ndim > POSITIONS for array in arrays)


def _as_they_are(
    dataset: Dataset, transforms: Transforms, shape: tuple[int, ...], location: str
) -> tuple[Dataset, Transforms]:
    """The transforms without random changes, and a note in the data set where there would have been some. Raises
    InputError for images that have to be cropped to the `shape` that the network takes."""
    train, test = transforms
    images = dataset.train.images
    other = "other inputs" if isinstance(images, Inputs) else "targets with positions"
    if not isinstance(images, Inputs) and images.shape[1:] != shape:
        raise InputError(f"images are cropped (crop_size), and {other} would no longer fit", location)
    notes = (f"Images aren't mirrored: {other} would no longer fit.",) if train.mirror else ()
    dataset = replace(dataset, notes=(*dataset.notes, *notes))
    return dataset, (replace(train, mirror=False, crop_size=0), replace(test, mirror=False, crop_size=0))


def _default_resize(network: ImportedNetwork, shape: tuple[int, ...]) -> Resize:
    """What the network's metadata say, which a prototxt has, too (Caffe squashes); else what networks for photographs
    are trained with. Grey images are rather drawings, or scans, whose margin and orientation matter."""
    if TRANSFORM_KEY in network.model.metadata:
        return network.test_transform.resize
    return "crop" if shape[:1] == (3,) else "squash"


def _outputs(network: ImportedNetwork) -> int:
    """How many scores the network gives an image; 0 where it doesn't say."""
    shape = tensor_shape(network.model.graph.outputs[0]) or ()
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else 0
