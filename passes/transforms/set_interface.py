"""set-interface: gives a network of images [N, channels, height, width] inputs and outputs of another form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Node, Tensor, Variable, producer, tensor_shape
from wootz.passes.ir.rewrite import ModuleEnds, erase_nodes, redirect_readers
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.plan.transform import Layout
from wootz.passes.transforms.image_classifier import (
    BATCH,
    CHANNELS_FIRST,
    first_transpose,
    keep_outputs,
    takes_images,
)

CHANNELS_LAST = [0, 2, 3, 1]

ElementType = Literal[
    "float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"
]


@dataclass(frozen=True)
class SetInterface(Pass):
    """Gives a network of images [N, channels, height, width] and scores [N, classes] another form of both; outputs of
    another form may only get another type.

    It is the way back from `image-classifier`; names stay.

    1. With the layout NHWC it takes images [N, height, width, channels], and begins with a Transpose.
    2. Images of another type are cast to float32 behind that, and outputs of float32 to another type at the end. Casts
       that changed nothing go.
    3. A `batch`, and a height and width `size`, become those of the input: numbers, or names of open extents.
    4. Scores of a higher rank get extents of 1 at the end.
    5. Of a network with several inputs, or one that is no image, inputs of float32 may get another type, and all
       another `batch`.

    Refuses a layout or size for other inputs than images, and images of another form than that which it begins with.
    """

    name = "set-interface"
    layout: Layout = option("NCHW", "of the images: NCHW or NHWC")
    input_type: ElementType = option("float32", "element type of the images")
    batch: str = option("", "a number, or the name of an open extent; by default as it is")
    size: tuple[str, ...] = option((), "height and width, numbers or names; by default as they are")
    output_rank: int = option(2, "4 for scores [N, classes, 1, 1]")
    output_type: ElementType = option("float32", "element type of the scores")

    def apply(self, model: Model) -> PassResult:
        if self == UNCHANGED:
            return PassResult(model, modified=False)
        result = model.copy()
        graph, ends = result.graph, ModuleEnds(result)
        annotate_shapes(graph)
        self._check(graph)
        for source in list(graph.inputs):
            self._set_input(source, graph, ends)
        for output in list(graph.outputs):
            self._set_output(output, graph, ends)
        for tensor in graph.tensors().values():
            if isinstance(tensor, Variable) and all(tensor is not source for source in graph.inputs):
                tensor.shape = None
        try:
            annotate_shapes(graph)
        except WootzError as error:
            raise self.refuse(f"with that input the network is not valid ({error})") from error
        return PassResult(replace(result, modules=ends.table(graph)), modified=True)

    def _check(self, graph: Graph) -> None:
        if not takes_images(graph) and (self.size or self.layout != "NCHW"):
            raise self.refuse(
                "a layout and a size are for images alone, in the form that image-classifier brings them into",
                graph.inputs[0].name,
            )
        if self.input_type != "float32" and all(np.dtype(t.dtype) != np.float32 for t in graph.inputs):
            raise self.refuse("no input holds float32, which is what becomes another type", graph.inputs[0].name)
        if self.output_rank > 2 and [_rank(t) for t in graph.outputs] != [2]:
            raise self.refuse(f"a rank of {self.output_rank} is for scores [N, classes] alone")
        if self.size and len(self.size) != 2:
            raise self.refuse(f"a size is a height and a width, not {', '.join(self.size)}")

    def _set_input(self, old: Tensor, graph: Graph, ends: ModuleEnds) -> None:
        batch, *extents = tensor_shape(old) or ()
        shape = [_extent(self.batch) if self.batch else batch, *extents]
        shape[2:] = [_extent(extent) for extent in self.size] or shape[2:]
        if self.layout == "NCHW" and (self.input_type == "float32" or np.dtype(old.dtype) != np.float32):
            old.shape = shape
            return
        new = Variable(old.name, np.dtype(self.input_type), shape)
        builder = Builder(graph)
        old.name = builder.fresh(f"{new.name}/image")
        body, graph.nodes = list(graph.nodes), []
        image: Tensor = new
        if self.layout == "NHWC":
            new.shape = [shape[axis] for axis in CHANNELS_LAST]
            image = builder.op("Transpose", image, perm=CHANNELS_FIRST, hint=f"{new.name}/channels_first")
        if self.input_type != "float32":
            image = builder.op("Cast", image, to=int(onnx.TensorProto.FLOAT), hint=f"{new.name}/float")
        redirect_readers(old, image)
        ends.move(old, image)
        graph.inputs = [new if tensor is old else tensor for tensor in graph.inputs]
        graph.nodes = [*graph.nodes, *body]
        _drop_casts(graph, [n for n in image.outputs if _is_cast_to_float(n)], ends)

    def _set_output(self, scores: Tensor, graph: Graph, ends: ModuleEnds) -> None:
        name, dtype = scores.name, np.dtype(self.output_type)
        builder = Builder(graph)
        last = producer(scores)
        value: Tensor = scores
        if self.output_rank > 2:
            if last is not None and last.op == "Flatten" and _rank(last.inputs[0]) == self.output_rank:
                value = last.inputs[0]
            else:
                axes = builder.constant(list(range(2, self.output_rank)), f"{name}/axes")
                value = builder.op("Unsqueeze", scores, axes, hint=f"{name}/unsqueezed")
        if dtype != np.float32 == np.dtype(scores.dtype):
            value = builder.op("Cast", value, to=onnx.helper.np_dtype_to_tensor_dtype(dtype), hint=f"{name}/cast")
        if value is scores:
            return
        scores.name = builder.fresh(f"{name}/scores")
        value.name, value.dtype = name, dtype
        graph.outputs = [value if tensor is scores else tensor for tensor in graph.outputs]
        if last is not None and not scores.outputs:
            erase_nodes(graph, [last])
            ends.move(scores, value)


UNCHANGED = SetInterface()
"""The form that networks are trained in."""


def interface_of(given: Model, trained: Model) -> SetInterface:
    """What `set-interface` has to do to what `image-classifier`, or `as_trainable_network`, made of a `given` model for
    it to be as it was. The outputs of `trained` are some of the given ones."""
    outputs = trained.graph.outputs
    kept = given.copy().graph
    list(keep_outputs(kept, outputs[0].name if len(outputs) == 1 else ""))
    result, *others = kept.outputs
    return replace(
        _interface_of_images(kept, trained.graph) if takes_images(trained.graph) else _interface_of_inputs(kept),
        output_rank=_rank(result) or 2 if not others and _rank(outputs[0]) == 2 else 2,
        output_type=next(
            (_type_name(t) for t in kept.outputs if np.dtype(t.dtype or np.float32).kind == "f"), "float32"
        ),
    )


def _interface_of_images(given: Graph, trained: Graph) -> SetInterface:
    (image,), (source,) = trained.inputs, given.inputs
    was_last = first_transpose(given) is not None and first_transpose(trained) is None
    before = tensor_shape(source) or ()
    batch, *size = [before[axis] for axis in ((0, 1, 2) if was_last else (0, 2, 3))]
    after = tensor_shape(image) or ()
    return SetInterface(
        layout="NHWC" if was_last else "NCHW",
        input_type=_type_name(source),
        batch=str(batch) if batch != after[0] else "",
        size=tuple(map(str, size)) if tuple(size) != after[2:] else (),
    )


def _interface_of_inputs(given: Graph) -> SetInterface:
    floats = (t for t in given.inputs if np.dtype(t.dtype).kind == "f")
    batch, *_ = tensor_shape(given.inputs[0]) or (BATCH,)
    return SetInterface(
        input_type=next(map(_type_name, floats), "float32"), batch=str(batch) if isinstance(batch, int) else ""
    )


def _type_name(tensor: Tensor) -> ElementType:
    name: ElementType = "float32" if tensor.dtype is None else np.dtype(tensor.dtype).name
    return name


def _rank(tensor: Tensor) -> int | None:
    return None if tensor.shape is None else len(tensor.shape)


def _extent(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _is_cast_to_float(node: Node) -> bool:
    return bool(node.op == "Cast" and node.attrs.get("to") in (int(onnx.TensorProto.FLOAT), np.float32))


def _drop_casts(graph: Graph, casts: list[Node], ends: ModuleEnds) -> None:
    """Takes out those whose results are no outputs of the graph."""
    dropped = [n for n in casts if not any(n.outputs[0] is t for t in graph.outputs)]
    for node in dropped:
        redirect_readers(node.outputs[0], node.inputs[0])
        ends.move(node.outputs[0], node.inputs[0])
    erase_nodes(graph, dropped)
