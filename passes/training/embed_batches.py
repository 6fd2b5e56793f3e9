"""`embed-batches`: a training graph that makes its batches itself, from a data set that stays where the graph runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import TRAINING_KEY, Constant, Graph, Model, Node, Tensor, Variable, producer
from wootz.passes.ir.rewrite import compute_as
from wootz.passes.plan.transform import TRANSFORM_KEY, InputTransform
from wootz.passes.training.expression import Expression, np_to_onnx_type
from wootz.passes.training.interface import BATCHES_KEY, TARGET_OF, EmbeddedBatches, Slot, TrainingInterface
from wootz.passes.training.state import NEW_SUFFIX

AS_THEY_ARE = InputTransform(channel_order="RGB")
RECORDED_SUFFIX = ".recorded"
OF_ALL = "image_"
"""The inputs that hold something for all images begin with it, and end with what a batch has of it."""
PARTS = 256
"""Positions between two pixels of an image that is resized."""


@dataclass(frozen=True)
class EmbedBatches(Pass):
    """Moves choosing, cropping, mirroring and normalising a batch into the graph, and looking up the learning rate.

    1. The inputs for data, labels and learning rate become tensors that the graph computes. It has in their place
       `images` [images, channels, height, width] and `image_labels` [images, …] (of several outputs
       `image_target/OUTPUT`), all of a split, and a schedule for `window` runs: `order` int64 [window, batch], which
       images make a batch; where images are cropped `tops` and `lefts`, where crops are resized `heights` and `widths`
       of them, and where images are mirrored `flips` (1: from left to right), int64 [window, batch]; `learning_rates`
       float32 [window]. What the full network gives is `image_teacher/TENSOR` [images, …]; where images are mirrored
       [2 · images, …], that of a mirrored image behind that of the image.
    2. A new slot, `position`, is the number of the run in the window, from 0.
    3. The losses of the runs in the window are slots too, `<loss>.recorded` float32 [window]: a program that reads
       them, gives the next part of the schedule and sets `position` to 0 copies nothing in the runs between.
    4. How images are cropped, mirrored and normalised is read from `wootz.input`; without it they are taken as they
       are. Afterwards it says that nothing is left to do.
    5. A batch has `batch-size` images: all shapes are static, as CUDA graphs need them.

    The batches are those of the runtime, bit for bit. Which tensor is what is stored in the metadata (`wootz.batches`,
    and `wootz.training` with the new names). Refuses a model that is no training graph, data that are not [batch,
    channels, height, width] and targets that are not [batch, …] with known extents, and targets that are more than
    [batch] or [batch, numbers] where images are cropped or mirrored: these have their positions. Refuses what the full
    network gives, where images are cropped: that is of whole ones.
    """

    name: ClassVar[str] = "embed-batches"
    requires = "a training graph: apply-optimizer runs before"
    batch_size: int = option(32, "images in a batch")
    window: int = option(128, "runs for which the schedule and the recorded losses have room")
    height: int = option(0, "height of the images before they are cropped; 0: the network's")
    width: int = option(0, "width of the images before they are cropped; 0: the network's")
    pixels: Literal["uint8", "float32"] = option("uint8", "element type of the images, uint8 or float32")

    def apply(self, model: Model) -> PassResult:
        if TRAINING_KEY not in model.metadata:
            raise self.refuse("this is no training graph: run apply-optimizer first")
        if BATCHES_KEY in model.metadata:
            raise self.refuse("the graph makes its batches already")
        if TrainingInterface.of(model).more_data:
            raise self.refuse("the network has several inputs: give the training graph its batches")
        if self.batch_size < 1 or self.window < 1:
            raise self.refuse(f"batch-size and window are at least 1, not {self.batch_size} and {self.window}")
        given = model.metadata.get(TRANSFORM_KEY)
        transform = AS_THEY_ARE if given is None else InputTransform.from_json(given)
        self._check_targets(model, transform)
        result = model.copy()
        interface, batches = _Embedding(result.graph, TrainingInterface.of(model), transform, self).embed()
        metadata = {
            **model.metadata,
            TRAINING_KEY: interface.to_json(),
            BATCHES_KEY: batches.to_json(),
            TRANSFORM_KEY: AS_THEY_ARE.to_json(),
        }
        nodes = len(result.graph.nodes) - len(model.graph.nodes)
        return PassResult(replace(result, metadata=metadata), True, {"nodes": nodes})

    def _check_targets(self, model: Model, transform: InputTransform) -> None:
        crop, stored = transform.crop_size, (self.height, self.width)
        crops = transform.least_area < 1 or (crop > 0 and stored not in ((0, 0), (crop, crop)))
        inputs, interface = {t.name: t for t in model.graph.inputs}, TrainingInterface.of(model)
        for name in (*interface.target_inputs, *interface.teacher):
            shape = inputs[name].shape
            if shape is None or not all(isinstance(extent, int) for extent in shape[1:]):
                raise self.refuse(f"targets have known extents but for the batch, not {shape}", name)
            if name in interface.teacher and crops:
                raise self.refuse("what the full network gives is of whole images, and these are cropped", name)
            if name in interface.target_inputs and (crops or transform.mirror) and len(shape) > 2:
                raise self.refuse("targets with positions don't fit images that are cropped or mirrored", name)


class _Embedding:
    """Puts the nodes that make a batch before those of `graph`, and those that record a loss behind its own."""

    def __init__(self, graph: Graph, interface: TrainingInterface, transform: InputTransform, options: EmbedBatches):
        self.graph, self.interface, self.transform, self.options = graph, interface, transform, options
        self.builder = Builder(graph)
        self.inputs: list[Tensor] = []
        self.slots: list[Slot] = []
        self._rows_of_run: dict[str, Expression] = {}
        self.given = {t.name: t for t in graph.inputs}
        self.channels, self.height, self.width = self._network_shape()
        self.stored_height = options.height or self.height
        self.stored_width = options.width or self.width

    def embed(self) -> tuple[TrainingInterface, EmbeddedBatches]:
        self._check_extents()
        self._fix_batch_size()
        body, self.graph.nodes = list(self.graph.nodes), []
        images = self._input(
            "images", self.options.pixels, "images", self.channels, self.stored_height, self.stored_width
        )
        targets = {name: self._whole_targets(name) for name in self.interface.target_inputs}
        given = {name: self._whole_outputs(name) for name in self.interface.teacher}
        rates = self._input("learning_rates", np.float32, self.options.window)
        position = self._slot("position", np.zeros((), np.int64))
        order = self._of_this_run("order", position)
        chosen = images.op("Gather", order, axis=0)
        self._replace_input(self.interface.data, self._normalized(self._arranged(chosen, position)))
        for name, whole in targets.items():
            self._replace_input(name, whole.op("Gather", order, axis=0))
        if given:
            rows = order * 2 + self._of_this_run("flips", position) if self.transform.mirror else order
            for name, whole in given.items():
                self._replace_input(name, whole.op("Gather", rows, axis=0))
        self._replace_input(self.interface.learning_rate, rates.op("Gather", position, axis=0))
        recorded = self._record_losses(body, position)
        self._set_slot("position", position + 1)
        self.graph.inputs = [*self.inputs, *self.graph.inputs]
        names = tuple(whole.tensor.name for whole in targets.values())
        interface = replace(
            self.interface,
            data="images",
            labels=names[0] if names else None,
            targets=names[1:],
            teacher=tuple(whole.tensor.name for whole in given.values()),
            learning_rate="learning_rates",
            slots=(*self.interface.slots, *self.slots),
        )
        made = {t.name for t in self.inputs}
        optional = {n: n if n in made else None for n in ("tops", "lefts", "heights", "widths", "flips")}
        return interface, EmbeddedBatches(
            order="order", position="position", recorded=recorded, window=self.options.window, **optional
        )

    def _whole_targets(self, name: str) -> Expression:
        """The input for what a batch has as `name`, of all images."""
        given, is_of_output = self.given[name], name.startswith(TARGET_OF)
        whole = OF_ALL + name if is_of_output else "image_labels"
        return self._input(whole, given.dtype, "images", *given.shape[1:])

    def _whole_outputs(self, name: str) -> Expression:
        """The input for what the full network gives for all images, and for all mirrored ones."""
        given, extent = self.given[name], "variants" if self.transform.mirror else "images"
        return self._input(OF_ALL + name, given.dtype, extent, *given.shape[1:])

    def _network_shape(self) -> tuple[int, int, int]:
        shape = self.given[self.interface.data].shape
        if shape is None or len(shape) != 4 or not all(isinstance(extent, int) for extent in shape[1:]):
            raise self.options.refuse(
                f"the data are {shape}, not [batch, channels, height, width] with known extents", self.interface.data
            )
        channels, height, width = shape[1:]
        return channels, height, width

    def _check_extents(self) -> None:
        network, stored = (self.height, self.width), (self.stored_height, self.stored_width)
        crop = self.transform.crop_size
        if self.transform.least_area < 1 and self.options.pixels != "uint8":
            raise self.options.refuse("crops are resized exactly of pixels in uint8 alone")
        if crop and (network != (crop, crop) or min(stored) < crop):
            raise self.options.refuse(
                f"crops of {crop}x{crop} from images of {stored[0]}x{stored[1]} for a network of "
                f"{network[0]}x{network[1]}"
            )
        if not crop and network != stored:
            raise self.options.refuse(
                f"the images are {stored[0]}x{stored[1]}, the network takes {network[0]}x{network[1]}, and there is no "
                f"crop_size"
            )

    def _fix_batch_size(self) -> None:
        size = self.given[self.interface.data].shape[0]
        if size == self.options.batch_size:
            return
        if isinstance(size, int):
            raise self.options.refuse(f"the network takes batches of {size}, not of {self.options.batch_size}")
        for tensor in (*self.graph.tensors().values(), *self.graph.inputs):
            if isinstance(tensor, Variable) and tensor.shape is not None:
                tensor.shape = [self.options.batch_size if extent == size else extent for extent in tensor.shape]

    def _is_reversed(self) -> bool:
        return self.transform.channel_order == "BGR" and self.channels == 3

    def _arranged(self, images: Expression, position: Expression) -> Expression:
        """The chosen images cropped and mirrored, their channels in the network's order."""
        if self.transform.least_area < 1:
            return self._resized(images, position)
        if self.transform.crop_size or self.transform.mirror:
            places = images.integers(self._planes()) + self._rows(images, position) + self._columns(images, position)
            return images.reshape([-1]).op("Gather", places, axis=0)
        if self._is_reversed():
            return images.op("Gather", images.integers([2, 1, 0]), axis=1)
        return images

    def _planes(self) -> np.ndarray:
        """[batch, channels, 1, 1]: where channel c of image i begins in the batch as a row of pixels."""
        channels = np.arange(self.channels)[:: -1 if self._is_reversed() else 1]
        planes = np.arange(self.options.batch_size)[:, None] * self.channels + channels
        return planes[:, :, None, None] * (self.stored_height * self.stored_width)

    def _rows(self, like: Expression, position: Expression) -> Expression:
        """[batch, 1, height, 1]: where row `top + y` begins in its channel."""
        rows = like.integers(np.arange(self.height).reshape(1, 1, -1, 1) * self.stored_width)
        if not self.transform.crop_size:
            return rows
        return rows + self._of_this_run("tops", position).reshape([-1, 1, 1, 1]) * self.stored_width

    def _columns(self, like: Expression, position: Expression) -> Expression:
        """[batch, 1, 1, width]: column `left + x`, or `left + width - 1 - x` in a mirrored image."""
        ramp = np.arange(self.width).reshape(1, 1, 1, -1)
        columns = like.integers(ramp)
        if self.transform.crop_size:
            columns = columns + self._of_this_run("lefts", position).reshape([-1, 1, 1, 1])
        if self.transform.mirror:
            flips = self._of_this_run("flips", position).reshape([-1, 1, 1, 1])
            columns = columns + flips * like.integers(self.width - 1 - 2 * ramp)
        return columns

    def _resized(self, images: Expression, position: Expression) -> Expression:
        """Crops of any size, resized bilinearly, in float32; exact, as `runtime.batches` computes them.

        Positions are in 1/256 of a pixel, so that a weighted sum of pixels in uint8 has no more than 24 bits.
        """
        row, column = (images.integers(np.arange(n)) for n in (self.height, self.width))
        if self.transform.mirror:
            flips = self._of_this_run("flips", position).reshape([-1, 1])
            column = column + flips * images.integers(self.width - 1 - 2 * np.arange(self.width))
        *rows, share = self._places(row, "tops", "heights", self.height, position, [-1, 1, self.height, 1])
        *columns, mix = self._places(column, "lefts", "widths", self.width, position, [-1, 1, 1, self.width])
        pixels, planes = images.reshape([-1]), images.integers(self._planes())
        total = None
        for i, vertical in enumerate(rows):
            for k, horizontal in enumerate(columns):
                corner = pixels.op("Gather", planes + vertical * self.stored_width + horizontal, axis=0)
                weight = (share if i else PARTS - share) * (mix if k else PARTS - mix)
                part = corner.as_type(np.dtype(np.float32)) * weight.as_type(np.dtype(np.float32))
                total = part if total is None else total + part
        assert total is not None
        return total * (1 / PARTS**2)

    def _places(
        self, numbers: Expression, begin: str, extent: str, size: int, position: Expression, shape: list[int]
    ) -> tuple[Expression, Expression, Expression]:
        """Where pixel `numbers` of `size` in a crop lies: the pixel before, the one behind it, and how many `PARTS` of
        the way it is, int64 of `shape`."""
        begins, extents = (self._of_this_run(name, position).reshape([-1, 1]) for name in (begin, extent))
        middles = (numbers * 2 + 1) * extents * PARTS / (2 * size) - PARTS // 2
        middles = middles.op("Max", middles.integers(0)).op("Min", (extents - 1) * PARTS)
        before = middles / PARTS
        behind = (before + 1).op("Min", extents - 1)
        weight = middles - before * PARTS
        return (begins + before).reshape(shape), (begins + behind).reshape(shape), weight.reshape(shape)

    def _normalized(self, pixels: Expression) -> Expression:
        """`(pixel - mean) * scale` in float32; a mean of 0 and a scale of 1 add no node."""
        values = pixels
        if pixels.dtype != np.float32:
            values = Expression(
                self.builder.op("Cast", pixels.tensor, to=np_to_onnx_type(np.dtype(np.float32))),
                self.builder,
                np.dtype(np.float32),
            )
        for op, numbers, neutral in (("Sub", self.transform.mean, 0.0), ("Mul", self.transform.scale, 1.0)):
            if any(number != neutral for number in numbers):
                values = values.op(op, values.constant(np.asarray(numbers, np.float32).reshape(-1, 1, 1)))
        return values

    def _record_losses(self, body: list[Node], position: Expression) -> tuple[str, ...]:
        """Appends `body` with a node behind each loss that puts it into the place of this run; the slots' names.

        Right behind it, since what one loss is computed from need not stay in memory until all others are known.
        """
        is_this_run = position.integers(np.arange(self.options.window)).equal(position)
        losses = {t.name: t for t in self.graph.outputs if t.name in self.interface.losses}
        behind: dict[int, list[Tensor]] = {}
        for loss in losses.values():
            behind.setdefault(id(producer(loss)), []).append(loss)
        for node in body:
            self.graph.nodes.append(node)
            for loss in behind.get(id(node), ()):
                name = loss.name + RECORDED_SUFFIX
                recorded = self._slot(name, np.zeros(self.options.window, np.float32), loss.name)
                self._set_slot(name, Expression.of(loss, self.builder).where(is_this_run, recorded))
        return tuple(name + RECORDED_SUFFIX for name in self.interface.losses)

    def _of_this_run(self, name: str, position: Expression) -> Expression:
        """Row `position` of an input int64 [window, batch], which is made where it is first asked for."""
        if name not in self._rows_of_run:
            schedule = self._input(name, np.int64, self.options.window, self.options.batch_size)
            self._rows_of_run[name] = schedule.op("Gather", position, axis=0)
        return self._rows_of_run[name]

    def _input(self, name: str, dtype: Any, *shape: int | str) -> Expression:
        tensor = Variable(self._claim(name), np.dtype(dtype), list(shape))
        self.inputs.append(tensor)
        return Expression.of(tensor, self.builder)

    def _slot(self, name: str, initial: np.ndarray, loss: str = "") -> Expression:
        tensor = Constant(self._claim(name), initial)
        self.graph.inputs.append(tensor)
        self.slots.append(Slot(name, name + NEW_SUFFIX, "schedule", loss))
        return Expression.of(tensor, self.builder)

    def _set_slot(self, name: str, value: Expression) -> None:
        """Makes `value` what the slot holds after the run."""
        old = next(t for t in self.graph.inputs if t.name == name)
        tensor = value.tensor
        tensor.name, tensor.dtype, tensor.shape = name + NEW_SUFFIX, old.dtype, list(old.shape)
        self.graph.outputs.append(tensor)

    def _claim(self, name: str) -> str:
        if self.builder.fresh(name) != name:
            raise self.options.refuse("the name is taken", name)
        return name

    def _replace_input(self, name: str, value: Expression) -> None:
        """Lets the graph compute its input `name`: `value` gets the name."""
        old = self.given[name]
        self.graph.inputs = [t for t in self.graph.inputs if t is not old]
        compute_as(value.tensor, old)
