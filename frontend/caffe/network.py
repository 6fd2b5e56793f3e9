"""A Caffe network as it is written: layers of one form, whichever version of Caffe's format they came in.

Two forms are read: `layer` with types as strings (V2), and `layers` with types as enumerators, `blobs_lr`,
`weight_decay` and `param` strings (V1); what differs is brought to V2's form, as Caffe's `upgrade_proto.cpp` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from wootz.frontend.caffe.prototxt import Field, Message, Scalar
from wootz.frontend.caffe.schema import NoEffect, Unsigned, decode, misspelt, unknown_field
from wootz.passes.errors import InputError


class Phase(Enum):
    TRAIN = 0
    TEST = 1


class ShareMode(Enum):
    STRICT = 0
    PERMISSIVE = 1


@dataclass(frozen=True)
class BlobShape:
    dim: tuple[int, ...] = ()


SCALAR = BlobShape()


@dataclass(frozen=True)
class ParameterSpec:
    """How one blob of a layer is trained, and the name under which layers share it (Caffe's ParamSpec)."""

    name: str = ""
    share_mode: ShareMode = ShareMode.STRICT
    lr_mult: float = 1.0
    decay_mult: float = 1.0


@dataclass(frozen=True)
class NetStateRule:
    """Holds for a state with that phase, a level within the bounds, all of `stage` and none of `not_stage`."""

    phase: Phase | None = None
    min_level: int | None = None
    max_level: int | None = None
    stage: tuple[str, ...] = ()
    not_stage: tuple[str, ...] = ()

    def holds(self, state: NetState) -> bool:
        return (
            (self.phase is None or self.phase is state.phase)
            and (self.min_level is None or state.level >= self.min_level)
            and (self.max_level is None or state.level <= self.max_level)
            and set(self.stage) <= set(state.stage)
            and not set(self.not_stage) & set(state.stage)
        )


@dataclass(frozen=True)
class NetState:
    """What layers are chosen by."""

    phase: Phase = Phase.TEST
    level: int = 0
    stage: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One layer. `parameters` are the messages that say what it does; `module` is the mark of this compiler."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    specs: tuple[ParameterSpec, ...]
    include: tuple[NetStateRule, ...]
    exclude: tuple[NetStateRule, ...]
    loss_weights: tuple[float, ...]
    module: str
    message: Message

    def spec(self, index: int) -> ParameterSpec:
        return self.specs[index] if index < len(self.specs) else ParameterSpec()

    def is_in(self, state: NetState) -> bool:
        """Whether Caffe would keep this layer (`Net::FilterNet`)."""
        if self.include:
            return any(rule.holds(state) for rule in self.include)
        return not any(rule.holds(state) for rule in self.exclude)

    def parameter_fields(self) -> Iterator[Field]:
        """The fields that belong to the layer's type rather than to layers in general."""
        return (f for f in self.message.fields if f.name not in COMMON_FIELDS)

    def error(self, message: str, field: str | None = None) -> InputError:
        return self.message.error(f"layer {self.name!r} ({self.type}): {message}", field)

    def choice(self, state: NetState) -> str:
        """The options of the command line that would bring in this layer, which `state` leaves out."""
        rule = self.include[0] if self.include else NetStateRule()
        options = [f"--phase {rule.phase.name}"] if rule.phase not in (None, state.phase) else []
        options += [f"--stage {stage}" for stage in rule.stage if stage not in state.stage]
        if rule.min_level is not None and rule.min_level > state.level:
            options.append(f"--level {rule.min_level}")
        return " ".join(options) or "another --phase or --stage"

    @property
    def place(self) -> str:
        """`file:line` of the layer, for notes."""
        return f"{self.message.source.file}:{self.message.source.position(self.message.offset)[0]}"


@dataclass(frozen=True)
class Network:
    """All layers of a file, of every phase, and the inputs that are declared outside layers.

    An input without a shape has None. Names are such as a model can hold; `notes` tells which had to be replaced.
    """

    name: str
    inputs: tuple[tuple[str, tuple[int, ...] | None], ...]
    layers: tuple[Layer, ...]
    message: Message
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _CommonFields:
    """What any layer may have; V1's fields below `module`, those of forks below `engine`."""

    name: str = ""
    type: str = ""
    bottom: tuple[str, ...] = ()
    top: tuple[str, ...] = ()
    phase: Phase | None = None
    loss_weight: tuple[float, ...] = ()
    include: tuple[NetStateRule, ...] = ()
    exclude: tuple[NetStateRule, ...] = ()
    propagate_down: tuple[bool, ...] = ()
    module: str = ""
    blobs_lr: tuple[float, ...] = ()
    weight_decay: tuple[float, ...] = ()
    blob_share_mode: tuple[ShareMode, ...] = ()
    engine: NoEffect | None = None
    forward_type: NoEffect | None = None
    backward_type: NoEffect | None = None
    forward_math: NoEffect | None = None
    backward_math: NoEffect | None = None
    reshape_every_iter: NoEffect | None = None
    debug: NoEffect | None = None
    multinode: NoEffect | None = None


COMMON_FIELDS = {*_CommonFields.__dataclass_fields__, "param"}

_IMPLEMENTATION_FIELDS = {
    "bn_stats_batch_size",
    "compile_net_state",
    "default_backward_math",
    "default_backward_type",
    "default_conv_algos_override",
    "default_forward_math",
    "default_forward_type",
    "eltwise_mem_sharing",
    "engine",
    "global_grad_scale",
    "mem_param",
    "multinode",
    "optimize_mem",
    "reduce_buckets",
}
"""Fields of forks by which a network chooses how it is computed, or trained by several machines; not what it is."""

_NET_FIELDS = {
    "name",
    "input",
    "input_dim",
    "input_shape",
    "layer",
    "layers",
    "force_backward",
    "debug_info",
    "state",
    *_IMPLEMENTATION_FIELDS,
}


@dataclass(frozen=True)
class _NetFields:
    name: str = ""
    input: tuple[str, ...] = ()
    input_dim: tuple[Unsigned, ...] = ()
    input_shape: tuple[BlobShape, ...] = ()
    force_backward: NoEffect | None = None
    debug_info: NoEffect | None = None


def read_network(message: Message) -> Network:
    """The network in a prototxt. Raises InputError for what is not understood outside the layers' own parameters."""
    for field in message.fields:
        if field.name not in _NET_FIELDS:
            if not misspelt(field.name, _NET_FIELDS) and not {"layer", "layers"} & {f.name for f in message.fields}:
                raise message.error("no layers: this is not the description of a network")
            raise unknown_field(field, message, _NET_FIELDS, "the network")
    head = Message(
        tuple(f for f in message.fields if f.name not in {"layer", "layers", "state", *_IMPLEMENTATION_FIELDS}),
        message.source,
        message.offset,
    )
    fields = decode(head, _NetFields, "the network")
    written: list[tuple[Message, dict[str, str]]] = [(m, {}) for m in message.messages("layer")]
    written += [(m, V1_TYPES) for m in message.messages("layers")]
    layers = [_layer(m, types) for m, types in sorted(written, key=lambda pair: pair[0].offset)]
    if not layers:
        raise message.error("no layers: this is not the description of a network")
    notes = tuple(
        f"{message.source.file}:{message.source.position(f.offset)[0]}: {f.name} has no effect here: it says how "
        f"a fork computes, not what"
        for f in message.fields
        if f.name in _IMPLEMENTATION_FIELDS
    )
    return _with_valid_names(Network(fields.name, _declared_inputs(fields, message), tuple(layers), message, notes))


def _with_valid_names(network: Network) -> Network:
    """The network with names that ONNX's models and texts can hold, and a note for each that had to be replaced.

    Caffe takes any string. In ONNX the empty name stands for an operand that is left out, and names of characters
    that can't be printed can't be read back.
    """
    blobs = [name for name, _ in network.inputs] + [
        b for layer in network.layers for b in (*layer.bottoms, *layer.tops)
    ]
    new_blobs = _replacements(blobs, "blob")
    new_layers = _replacements([layer.name for layer in network.layers], "layer")
    file = network.message.source.file
    notes = [
        f"{file}: the {kind} named {old!r} is called {new!r} in the model: a name has to have characters, all printable"
        for kind, names in (("blob", new_blobs), ("layer", new_layers))
        for old, new in names.items()
    ]

    def renamed(layer: Layer) -> Layer:
        return replace(
            layer,
            name=new_layers.get(layer.name, layer.name),
            bottoms=tuple(new_blobs.get(b, b) for b in layer.bottoms),
            tops=tuple(new_blobs.get(t, t) for t in layer.tops),
        )

    return replace(
        network,
        name=_printable(network.name),
        inputs=tuple((new_blobs.get(name, name), shape) for name, shape in network.inputs),
        layers=tuple(map(renamed, network.layers)) if notes else network.layers,
        notes=(*network.notes, *notes),
    )


def _replacements(names: Iterable[str], stem: str) -> dict[str, str]:
    """For each of the names that is no valid one another that is none of them; the empty one becomes `stem`."""
    taken = dict.fromkeys(names)
    new: dict[str, str] = {}
    for name in [n for n in taken if not n or not n.isprintable()]:
        base = candidate = _printable(name) or stem
        number = 1
        while candidate in taken:
            number += 1
            candidate = f"{base}{number}"
        taken[candidate] = None
        new[name] = candidate
    return new


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in name)


def stored_state(network: Network) -> NetState:
    """The `state` that the file asks for; levels and stages of the importer's caller are added to it."""
    states = [decode(m, NetState, "state") for m in network.message.messages("state")]
    return states[-1] if states else NetState()


def _declared_inputs(fields: _NetFields, message: Message) -> tuple[tuple[str, tuple[int, ...] | None], ...]:
    """The inputs and their shapes; without any shape in the file they are None each."""
    if repeated := sorted({name for name in fields.input if fields.input.count(name) > 1}):
        raise message.error(f"the input {repeated[0]!r} is declared twice", "input")
    if fields.input_shape and fields.input_dim:
        raise message.error("input_shape and input_dim exclude each other", "input_dim")
    shapes: list[tuple[int, ...] | None] = [shape.dim for shape in fields.input_shape]
    if not shapes and fields.input_dim:
        if len(fields.input_dim) % 4:
            raise message.error(f"{len(fields.input_dim)} input_dim for inputs of 4 dimensions", "input_dim")
        shapes = [tuple(fields.input_dim[i : i + 4]) for i in range(0, len(fields.input_dim), 4)]
    if not shapes:
        shapes = [None]
    if len(shapes) == 1:
        shapes *= len(fields.input)
    if len(shapes) != len(fields.input):
        raise message.error(f"{len(fields.input)} inputs but {len(shapes)} shapes of inputs", "input")
    return tuple(zip(fields.input, shapes, strict=True))


def _layer(message: Message, types: dict[str, str]) -> Layer:
    common = Message(
        tuple(f for f in message.fields if f.name in COMMON_FIELDS and f.name != "param"),
        message.source,
        message.offset,
    )
    fields = decode(common, _CommonFields, "layer")
    if not fields.type:
        if any(f.name == "layer" for f in message.fields):
            raise message.error(
                "a layer within layers is the syntax of 2013, which isn't read: Caffe's upgrade_net_proto_text writes "
                "the network anew"
            )
        raise message.error(f"layer {fields.name!r} has no type")
    return Layer(
        name=fields.name or (fields.top[0] if fields.top else fields.type),
        type=types.get(fields.type, fields.type),
        bottoms=fields.bottom,
        tops=fields.top,
        specs=_specs(fields, message),
        include=fields.include,
        exclude=fields.exclude,
        loss_weights=fields.loss_weight,
        module=fields.module,
        message=message,
    )


def _specs(fields: _CommonFields, message: Message) -> tuple[ParameterSpec, ...]:
    """The layer's ParamSpecs; V1 spreads them over `param` (names), `blobs_lr` and `weight_decay`."""
    written = list(message.all("param"))
    if any(isinstance(f.value, Message) for f in written):
        return tuple(decode(m, ParameterSpec, "layer.param") for m in message.messages("param"))
    names = [f.value.text for f in written if isinstance(f.value, Scalar)]
    count = max(len(names), len(fields.blobs_lr), len(fields.weight_decay))

    def at(values: tuple[float, ...], index: int) -> float:
        return values[index] if index < len(values) else 1.0

    return tuple(
        ParameterSpec(
            name=names[i] if i < len(names) else "",
            share_mode=fields.blob_share_mode[i] if i < len(fields.blob_share_mode) else ShareMode.STRICT,
            lr_mult=at(fields.blobs_lr, i),
            decay_mult=at(fields.weight_decay, i),
        )
        for i in range(count)
    )


_V1_ENUMERATORS = {
    "AbsVal": 35,
    "Accuracy": 1,
    "ArgMax": 30,
    "BNLL": 2,
    "Concat": 3,
    "ContrastiveLoss": 37,
    "Convolution": 4,
    "Data": 5,
    "Deconvolution": 39,
    "Dropout": 6,
    "DummyData": 32,
    "EuclideanLoss": 7,
    "Eltwise": 25,
    "Exp": 38,
    "Flatten": 8,
    "HDF5Data": 9,
    "HDF5Output": 10,
    "HingeLoss": 28,
    "Im2col": 11,
    "ImageData": 12,
    "InfogainLoss": 13,
    "InnerProduct": 14,
    "LRN": 15,
    "MemoryData": 29,
    "MultinomialLogisticLoss": 16,
    "MVN": 34,
    "Pooling": 17,
    "Power": 26,
    "ReLU": 18,
    "Sigmoid": 19,
    "SigmoidCrossEntropyLoss": 27,
    "Silence": 36,
    "Softmax": 20,
    "SoftmaxWithLoss": 21,
    "Split": 22,
    "Slice": 33,
    "TanH": 23,
    "WindowData": 24,
    "Threshold": 31,
}
_V1_SPELLINGS = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "DUMMY_DATA": "DummyData",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "WINDOW_DATA": "WindowData",
    # Of forks that kept V1's form.
    "CROP": "Crop",
    "PRELU": "PReLU",
    "UPSAMPLE": "Upsample",
}
V1_TYPES = {
    **{name.upper(): name for name in _V1_ENUMERATORS},
    **{str(number): name for name, number in _V1_ENUMERATORS.items()},
    **_V1_SPELLINGS,
}
"""V1LayerParameter.LayerType: enumerators (and their numbers, as caffemodels store them) -> V2's types."""
