"""Layers that bring data in, as graph inputs."""

from __future__ import annotations

from dataclasses import dataclass

from wootz.frontend.caffe.network import BlobShape, Layer
from wootz.frontend.caffe.prototxt import Message
from wootz.frontend.caffe.schema import LARGEST_INTEGER, Unsigned, decode
from wootz.passes.fillers import Filler

COLOUR_CHANNELS = 3

DATA_LAYERS = {
    "Input": "input_param",
    "MemoryData": "memory_data_param",
    "DummyData": "dummy_data_param",
    "ImageData": "image_data_param",
    "Data": "data_param",
    "HDF5Data": "hdf5_data_param",
    "WindowData": "window_data_param",
    "AnnotatedData": "data_param",
    "ImageSegData": "image_data_param",
    "DenseImageData": "dense_image_data_param",
    "VideoData": "video_data_param",
}
"""Layers without bottoms whose tops come from outside -> the field that may tell their shapes."""


@dataclass(frozen=True)
class InputParameter:
    shape: tuple[BlobShape, ...] = ()


@dataclass(frozen=True)
class DummyDataParameter:
    shape: tuple[BlobShape, ...] = ()
    num: tuple[Unsigned, ...] = ()
    channels: tuple[Unsigned, ...] = ()
    height: tuple[Unsigned, ...] = ()
    width: tuple[Unsigned, ...] = ()
    data_filler: tuple[Filler, ...] = ()


def is_data_layer(layer: Layer) -> bool:
    """Whether the layer's tops come from outside the network: also Python and unknown layers without bottoms."""
    return not layer.bottoms and layer.type != "Parameter"


def data_shapes(layer: Layer) -> tuple[tuple[int, ...] | None, ...]:
    """The shape of each top; None where it is in the data rather than in the network."""
    if not layer.tops:
        return ()
    field = DATA_LAYERS.get(layer.type, "")
    message = next(layer.message.messages(field), None) if field else None
    if layer.type == "Input" and message is not None:
        return _repeated(layer, decode(message, InputParameter, "input_param").shape)
    if layer.type == "DummyData" and message is not None:
        return _dummy_shapes(layer, decode(message, DummyDataParameter, "dummy_data_param"))
    sizes = {} if message is None else _sizes(message)
    return _image_shapes(layer, sizes)


def _repeated(layer: Layer, shapes: tuple[BlobShape, ...]) -> tuple[tuple[int, ...] | None, ...]:
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops):
        raise layer.error(f"{len(shapes)} shapes for {len(layer.tops)} tops")
    return tuple(shape.dim for shape in shapes)


def _dummy_shapes(layer: Layer, p: DummyDataParameter) -> tuple[tuple[int, ...] | None, ...]:
    if p.shape:
        return _repeated(layer, p.shape)
    columns = [values * len(layer.tops) if len(values) == 1 else values for values in _legacy(p)]
    if any(len(column) != len(layer.tops) for column in columns):
        raise layer.error(f"num, channels, height and width have to be given for {len(layer.tops)} tops")
    return tuple(tuple(column[i] for column in columns) for i in range(len(layer.tops)))


def _legacy(p: DummyDataParameter) -> list[tuple[Unsigned, ...]]:
    return [p.num, p.channels, p.height, p.width]


def _sizes(message: Message) -> dict[str, int]:
    """The whole numbers in a data layer's parameters; the rest of them says where the data is, not what it is."""
    sizes = {}
    for field in message.fields:
        value = getattr(field.value, "text", "")
        if value.isascii() and value.isdigit() and int(value) <= LARGEST_INTEGER:
            sizes[field.name] = int(value)
        elif field.name == "is_color":
            sizes[field.name] = int(value == "true")
    return sizes


def _image_shapes(layer: Layer, sizes: dict[str, int]) -> tuple[tuple[int, ...] | None, ...]:
    """Images as the first top, labels behind; the size is that of the crop, or of the layer's own fields."""
    message = next(layer.message.messages("transform_param"), None)
    crop = _sizes(message).get("crop_size", 0) if message else 0
    height = crop or sizes.get("new_height", sizes.get("height", 0))
    width = crop or sizes.get("new_width", sizes.get("width", 0))
    batch = sizes.get("batch_size", 1)
    channels = sizes.get("channels", COLOUR_CHANNELS if sizes.get("is_color", 1) else 1)
    image = (batch, channels, height, width) if height and width else None
    return (image, *((batch,) for _ in layer.tops[1:]))
