"""image-classifier: brings an exported network into the form that is trained: images in, scores of classes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from wootz.passes.analysis.computed_constants import ComputedConstants
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Graph, Model, Node, Tensor, Variable, tensor_shape
from wootz.passes.ir.rewrite import ModuleEnds, erase_dead_nodes, erase_nodes, redirect_readers
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.transforms.fuse_softmax import fuse_softmax
from wootz.passes.transforms.to_float32 import widen

BATCH = "N"
CHANNELS_FIRST = [0, 3, 1, 2]
"""The Transpose that a network of images [N, height, width, channels] begins with."""


@dataclass(frozen=True)
class ImageClassifier(Pass):
    """Brings a network into the form [N, channels, height, width] float32 -> [N, classes] for any N.

    1. One output stays: `scores`, or the only one. What it doesn't depend on goes, inputs too.
    2. A batch that the exporter fixed becomes symbolic, also as the first extent of a shape of Reshape that is
       constant, or computed of constants.
    3. An open height and width become `size`.
    4. A network of float16 or float64 becomes one of float32. An input of integers becomes float32 where nothing but
       Casts reads it, which do the same with numbers that are whole.
    5. A Transpose of images [N, height, width, channels] goes, if it is all that reads them, or what Casts, Add, Sub,
       Mul and Div with constants, of one number or one a channel, compute of them.
    6. Scores [N, classes, 1, 1] are flattened.
    7. A softmax that the exporter took apart (see `fuse-softmax`) becomes one operator.

    Refuses several outputs or inputs to choose from, images of another rank or without number of channels or size,
    and scores that are not one number a class. That each image is then computed for itself, whatever is beside it,
    is for the caller to check: a batch of one can be fixed in ways that nobody sees (`wootz run` does).
    """

    name = "image-classifier"
    scores: str = option("", "the output with the scores of the classes; by default the only one")
    size: tuple[int, ...] = option((), "height and width of the images, where the network leaves them open")

    def apply(self, model: Model) -> PassResult:
        result, changes = as_image_classifier(model, self.scores, self.size)
        return PassResult(result, bool(changes), statistics={"changes": len(changes)})


def as_image_classifier(model: Model, scores: str = "", size: tuple[int, ...] = ()) -> tuple[Model, tuple[str, ...]]:
    """What the pass does, and each change in a line. Raises PassError (see there)."""
    _check_one_output(model.graph, scores)
    network, changes = as_image_network(model, scores, size)
    check_scores(network)
    return network, changes


def as_image_network(model: Model, output: str = "", size: tuple[int, ...] = ()) -> tuple[Model, tuple[str, ...]]:
    """The same for a network whose outputs are anything: all of them stay, unless one is named. A single one of scores
    is flattened as the pass does it. Raises PassError for its input as the pass does."""
    result = model.copy()
    graph, ends = result.graph, ModuleEnds(result)
    changes = [*keep_outputs(graph, output)]
    _check_one_input(graph)
    changes += [*_with_float32(graph), *_with_float_input(graph), *_with_open_batch(graph), *_with_size(graph, size)]
    source = graph.inputs[0]
    if _without_transpose(graph, ends):
        changes.append(f"input {source.name}: [N, height, width, channels] is now [N, channels, height, width]")
    _check_image(source)
    changes += _finished(graph)
    return (replace(result, modules=ends.table(graph)), tuple(changes)) if changes else (model, ())


def as_trainable_network(model: Model, output: str = "", size: tuple[int, ...] = ()) -> tuple[Model, tuple[str, ...]]:
    """The same for a network of any inputs, each with the batch in front: `as_image_network`, where it is one.

    Else 1, 2 and 7 of the pass; float16 and float64 become float32; inputs of integers and booleans stay. Raises
    PassError for an input whose batch isn't in front, or that leaves another extent open.
    """
    result = model.copy()
    graph, ends = result.graph, ModuleEnds(result)
    changes = [*keep_outputs(graph, output)]
    if _may_be_images(graph):
        return as_image_network(model, output, size)
    if size:
        raise _refusal(f"a size is for networks of images alone: this one takes {_described(graph.inputs)}")
    _check_float_types(graph)
    changes += [*_with_float32(graph), *_with_common_batch(graph)]
    changes += _finished(graph)
    return (replace(result, modules=ends.table(graph)), tuple(changes)) if changes else (model, ())


def takes_images(graph: Graph) -> bool:
    """Whether a network in the form that is trained takes images alone, float32 [N, channels, height, width]."""
    first, *others = graph.inputs
    is_float = first.dtype is None or np.dtype(first.dtype) == np.float32
    return not others and is_float and len(tensor_shape(first) or ()) == 4


def _may_be_images(graph: Graph) -> bool:
    """The same before it is in that form: images of integers are read by Casts alone."""
    first, *others = graph.inputs
    if others or len(tensor_shape(first) or ()) != 4:
        return False
    kind = "f" if first.dtype is None else np.dtype(first.dtype).kind
    return kind == "f" or (kind in "iu" and _are_only_cast(first))


def _finished(graph: Graph) -> Iterator[str]:
    """Annotates shapes, and brings scores into their form; gives what has changed."""
    try:
        annotate_shapes(graph)
    except WootzError as error:
        raise _refusal(f"with a batch of any size the network is no longer valid ({error}): {EXPORT_AGAIN}") from error
    yield from _with_flat_scores(graph)
    if fuse_softmax(graph):
        yield "a softmax in Exp, ReduceSum and Div is now one operator"


EXPORT_AGAIN = (
    "export it again with a dynamic batch (torch.onnx.export: dynamic_axes={'INPUT': {0: 'N'}}, or with dynamo "
    "dynamic_shapes)"
)


def _refusal(reason: str, where: str | None = None) -> WootzError:
    return ImageClassifier().refuse(reason, where)


def _described(tensors: list[Tensor]) -> str:
    """Names with shapes."""
    shapes = ((t.name, tensor_shape(t)) for t in tensors)
    return ", ".join(f"{name} [{', '.join(map(str, shape))}]" if shape is not None else name for name, shape in shapes)


def is_classifier(model: Model) -> bool:
    """Whether a network in the form that is trained gives one number a class, as far as it says, of several classes."""
    return may_be_classifier(model) and not gives_a_number(model)


def may_be_classifier(model: Model) -> bool:
    """The same where there may be a single number, which another last layer makes those of classes."""
    (scores, *others), shape = model.graph.outputs, tensor_shape(model.graph.outputs[0])
    return not others and (shape is None or len(shape) == 2) and not _holds_integers(scores)


def gives_a_number(model: Model) -> bool:
    """Whether a network in the form that is trained gives a single number for each sample: [N] or [N, 1]."""
    shapes = [tensor_shape(output) for output in model.graph.outputs]
    return len(shapes) == 1 and shapes[0] is not None and [*shapes[0][1:]] in ([], [1])


def _holds_integers(tensor: Tensor) -> bool:
    return tensor.dtype is not None and np.dtype(tensor.dtype).kind != "f"


def check_scores(network: Model) -> None:
    """Raises PassError for a network in the form that is trained which is no classifier, and says why."""
    _check_one_output(network.graph)
    (scores,) = network.graph.outputs
    if not may_be_classifier(network):
        raise _refusal(
            "it is not one number a class, [N, classes]: labels of classes can't train it; choose another output by "
            "--scores NAME",
            f"output {_described([scores])}",
        )


def _check_one_output(graph: Graph, name: str = "") -> None:
    if not name and len(graph.outputs) != 1:
        raise _refusal(
            f"the network has {len(graph.outputs)} outputs, {_described(graph.outputs)}: choose the one with the "
            f"scores by --scores NAME"
        )


def keep_outputs(graph: Graph, name: str) -> Iterator[str]:
    """Leaves out other outputs than the one called `name`, if that is said, and what they alone depend on, in place;
    gives what that is, a line each."""
    chosen = [t for t in graph.outputs if t.name == name] if name else list(graph.outputs)
    if not chosen:
        raise _refusal(f"no output named {name!r} (outputs: {_described(graph.outputs)})")
    dropped = [t.name for t in graph.outputs if all(t is not kept for kept in chosen)]
    graph.outputs = chosen
    erase_dead_nodes(graph)
    read = {t.name for n in graph.nodes for t in n.inputs}
    unread = [t.name for t in graph.inputs if t.name not in read and _is_unread(graph, t)]
    graph.inputs = [t for t in graph.inputs if t.name not in unread]
    if not graph.inputs:
        raise _refusal(f"output {chosen[0].name} reads no input: choose another output by --scores NAME")
    for what, names in (("outputs", dropped), ("inputs", unread)):
        if names:
            yield f"{what} left out: {', '.join(names)}"


def _check_one_input(graph: Graph) -> None:
    if len(graph.inputs) != 1:
        raise _refusal(
            f"output {graph.outputs[0].name} reads {len(graph.inputs)} inputs, {_described(graph.inputs)}: a network "
            f"of images reads one; make the others constants in the export, or choose another output by --scores NAME"
        )


def _is_unread(graph: Graph, tensor: Tensor) -> bool:
    """Whether no subgraph reads the tensor either."""
    inner = (a for n in graph.nodes for a in n.attrs.values() if isinstance(a, Graph))
    return all(tensor.name not in subgraph.tensors() for subgraph in inner)


def _with_float32(graph: Graph) -> Iterator[str]:
    if found := widen(graph, ImageClassifier()):
        yield f"{' and '.join(found)} is now float32 (wootz run trains in mixed precision with --precision float16)"


def _with_float_input(graph: Graph) -> Iterator[str]:
    (source,) = graph.inputs
    if source.dtype is None or np.dtype(source.dtype) == np.float32:
        return
    dtype = np.dtype(source.dtype)
    if dtype.kind not in "iu" or not _are_only_cast(source):
        raise _refusal(
            f"it holds {dtype}, read by {', '.join(sorted(_readers(source)))}: wootz trains on float32; export the "
            f"network before it was quantised, with a float32 input",
            f"input {source.name}",
        )
    for tensor in (source, *(r.outputs[0] for r in source.outputs if r.op == "Transpose")):
        tensor.dtype = np.dtype(np.float32)
    yield f"input {source.name}: {dtype} is now float32, with the same values"


def _readers(source: Tensor) -> set[str]:
    """The operators that read an input, or that in another layout."""
    behind = {n.op for reader in source.outputs if reader.op == "Transpose" for n in reader.outputs[0].outputs}
    return {n.op for n in source.outputs} | behind


def _are_only_cast(source: Tensor) -> bool:
    return _readers(source) <= {"Cast", "Transpose"}


def _check_float_types(graph: Graph) -> None:
    """Raises PassError for inputs of several types of floats: what is delivered could not have them again."""
    types = sorted({np.dtype(t.dtype).name for t in graph.inputs if t.dtype and np.dtype(t.dtype).kind == "f"})
    if len(types) > 1:
        raise _refusal(f"its inputs hold {' and '.join(types)}: export the network with one of these types")
    for tensor in graph.inputs:
        if tensor.dtype is None or np.dtype(tensor.dtype).kind not in "biuf":
            raise _refusal("its inputs are numbers or booleans, of known types", f"input {tensor.name}")


def _with_common_batch(graph: Graph) -> Iterator[str]:
    """Checks that the batch is in front of all inputs, and all other extents are known; the batch becomes open, and has
    one name."""
    shapes = [tensor_shape(tensor) or () for tensor in graph.inputs]
    batch, *_ = *shapes[0], None
    for tensor, shape in zip(graph.inputs, shapes, strict=True):
        if not shape or (shape[0] != batch if isinstance(batch, int) else not isinstance(shape[0], str)):
            raise _refusal(
                f"the batch has to come first in all inputs, {_described(graph.inputs)}: export it that way",
                f"input {tensor.name}",
            )
        if not all(isinstance(extent, int) for extent in shape[1:]):
            raise _refusal(
                f"{_described([tensor])} leaves another extent than the batch open: export the network with it",
                f"input {tensor.name}",
            )
    if isinstance(batch, int):
        yield from _with_open_batch(graph)
        return
    if len({shape[0] for shape in shapes}) > 1:
        for tensor in graph.inputs:
            tensor.shape = [batch, *tensor.shape[1:]]
        _forget_shapes(graph)
        yield f"the batch is called {batch} in all inputs"


def _with_open_batch(graph: Graph) -> Iterator[str]:
    shape = tensor_shape(graph.inputs[0])
    if not shape or not isinstance(shape[0], int):
        return
    fixed = shape[0]
    annotate_shapes(graph)
    computed = ComputedConstants(graph)
    for node in graph.nodes:
        if node.op == "Reshape" and (target := computed.constant(node.inputs[1])) is not None:
            _open_reshape(node, target.values, fixed)
    erase_dead_nodes(graph)
    for source in graph.inputs:
        source.shape = [BATCH, *source.shape[1:]]
    _forget_shapes(graph)
    yield f"the batch, fixed to {fixed} by the exporter, is now of any size"


def _forget_shapes(graph: Graph) -> None:
    """Of what is computed."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, Variable) and all(tensor is not source for source in graph.inputs):
            tensor.shape = None


def _open_reshape(node: Node, target: np.ndarray, fixed: int) -> None:
    """Where both sides of a Reshape have the fixed batch in front, the extent is taken from the operand (0)."""
    operand = tensor_shape(node.inputs[0])
    if not target.size or not operand:
        return
    if operand[0] == target[0] == fixed and (not node.attrs.get("allowzero", 0) or np.all(target)):
        node.attrs.pop("allowzero", None)
        node.inputs[1] = Constant(f"{node.outputs[0].name}/shape", np.array([0, *target[1:]], np.int64))


def _with_size(graph: Graph, size: tuple[int, ...]) -> Iterator[str]:
    (source,) = graph.inputs
    if size and (len(size) != 2 or min(size) < 1):
        raise _refusal(f"a size is a height and a width, not {', '.join(map(str, size))}")
    shape = tensor_shape(source)
    if shape is None or len(shape) != 4:
        return
    at = (1, 2) if first_transpose(graph) else (2, 3)
    for axis, extent in zip(at, size, strict=False):
        if isinstance(shape[axis], int) and shape[axis] != extent:
            raise _refusal(
                f"it takes images of {shape[at[0]]}x{shape[at[1]]}, not {'x'.join(map(str, size))}: leave --size out",
                f"input {source.name}",
            )
    opened = [shape[axis] for axis in at if not isinstance(shape[axis], int)]
    if not opened:
        return
    if not size:
        raise _refusal(
            f"{_described([source])} leaves the size of images open: give it by --size HEIGHTxWIDTH", "input"
        )
    source.shape = [extent if axis not in at else size[at.index(axis)] for axis, extent in enumerate(shape)]
    yield f"input {source.name}: images are {size[0]}x{size[1]}"


def first_transpose(graph: Graph) -> Node | None:
    """The Transpose to channels first, if it is all that reads the images, or what is computed of them by channel."""
    tensor: Tensor = graph.inputs[0]
    while len(tensor.outputs) == 1 and not any(tensor is t for t in graph.outputs):
        node = tensor.outputs[0]
        if node.op == "Transpose":
            return node if list(node.attrs.get("perm", ())) == CHANNELS_FIRST else None
        if not _computes_by_channel(node, tensor):
            return None
        tensor = node.outputs[0]
    return None


def _computes_by_channel(node: Node, read: Tensor) -> bool:
    """Whether each element of images with channels last is computed alone, with one constant or one a channel."""
    if node.op in ("Identity", "Cast"):
        return True
    if node.op not in ("Add", "Sub", "Mul", "Div"):
        return False
    constants = [t.values for t in node.inputs if t is not read and isinstance(t, Constant)]
    return len(constants) == 1 and constants[0].ndim <= 4 and constants[0].size == ([1, *constants[0].shape])[-1]


def _without_transpose(graph: Graph, ends: ModuleEnds) -> bool:
    """Removes it, if there is one."""
    transpose = first_transpose(graph)
    if transpose is None or any(transpose.outputs[0] is t for t in graph.outputs):
        return False
    (source,), (transposed,) = graph.inputs, transpose.outputs
    build, tensor = Builder(graph), source
    while (node := tensor.outputs[0]) is not transpose:
        node.inputs = [_with_channels_first(t, build) if isinstance(t, Constant) else t for t in node.inputs]
        tensor = node.outputs[0]
        tensor.shape = None
    redirect_readers(transposed, tensor)
    ends.move(transposed, tensor)
    erase_nodes(graph, [transpose])
    shape = tensor_shape(source)
    if shape is not None and len(shape) == 4:
        source.shape = [shape[axis] for axis in CHANNELS_FIRST]
    return True


def _with_channels_first(operand: Constant, build: Builder) -> Constant:
    """One number, or one a channel, for images with channels first."""
    if operand.values.size == 1:
        return operand
    return build.constant(operand.values.reshape(-1, 1, 1), f"{operand.name}/channels")


def _check_image(source: Tensor) -> None:
    shape = tensor_shape(source)
    if shape is None or len(shape) != 4:
        raise _refusal("images are [N, channels, height, width]", f"input {_described([source])}")
    if not isinstance(shape[1], int):
        raise _refusal("it leaves the number of channels open: export the network with it", f"input {source.name}")


def _with_flat_scores(graph: Graph) -> Iterator[str]:
    scores, *others = graph.outputs
    shape = tensor_shape(scores)
    if (
        others
        or shape is None
        or len(shape) <= 2
        or any(extent != 1 for extent in shape[2:])
        or _holds_integers(scores)
    ):
        return
    name = scores.name
    scores.name = f"{name}/unflattened"
    flat = Builder(graph).op("Flatten", scores, axis=1, hint="scores")
    flat.name, flat.dtype, flat.shape = name, scores.dtype, list(shape[:2])
    graph.outputs = [flat]
    yield f"output {name}: [{', '.join(map(str, shape))}] is now [N, classes]"
