"""What the full network gives for training images: always the same, where these are taken as they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wootz.passes.ir.model import Model, tensor_shape
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.inputs import Data, Inputs, filled_up
from wootz.runtime.schedule import Choice
from wootz.runtime.session import DRAWS_RANDOM_NUMBERS, Device, InferenceSession

MOST_BYTES = 512 * 2**20
"""Of the outputs that a process keeps."""
BYTES_OF_A_VALUE = 4
TEACHER_BATCH = EVALUATION_BATCH
"""Images for which the full network runs at once, whatever the training's batches are: its bits may depend on that."""


@dataclass(frozen=True)
class TeacherOutputs:
    """`tensors` float32 [images · variants, …], by the names of a training graph's inputs. Of two variants the first is
    what is given for an image as it is, the second that for the mirrored one."""

    tensors: Mapping[str, np.ndarray]
    variants: int

    def of(self, choice: Choice) -> Mapping[str, np.ndarray]:
        """Those for the images of a batch."""
        rows = choice.images * self.variants
        if self.variants > 1 and choice.flips is not None:
            rows = rows + choice.flips
        return {name: values[rows] for name, values in self.tensors.items()}


def variants(split: Split, transform: InputTransform) -> int:
    """In how many ways training takes an example: as it is, or mirrored; 0 where it is cropped at random."""
    if isinstance(split.images, Inputs):
        return 1
    if transform.crop_size or transform.least_area < 1:
        return 0
    return 2 if transform.mirror else 1


def examples_once(split: Split, transform: InputTransform, solver: Solver) -> int:
    """How many examples, mirrored ones counted, the full network would have to be run on to know all that a training is
    given; 0 where these are more than the training sees."""
    examples = len(split) * variants(split, transform)
    return examples if examples <= solver.max_iter * solver.iter_size * solver.batch_size else 0


def values_of_example(part: Model) -> int | None:
    """How many values a network gives for an example; None where that isn't known, or it draws some at random."""
    shapes = [(tensor_shape(t) or (None, None))[1:] for t in part.graph.outputs]
    is_known = all(isinstance(extent, int) for shape in shapes for extent in shape)
    if not is_known or any(node.op in DRAWS_RANDOM_NUMBERS for node in part.graph.nodes):
        return None
    return sum(math.prod(int(extent or 0) for extent in shape) for shape in shapes)


def can_be_kept(values: int, examples: int, split: Split) -> bool:
    """Whether so many values an example are no more than the example itself has, and those of all aren't too many."""
    images = split.images
    shapes = [a.shape[1:] for a in images.arrays.values()] if isinstance(images, Inputs) else [images.shape[1:]]
    own = sum(math.prod(shape) for shape in shapes)
    return values <= own and BYTES_OF_A_VALUE * values * examples <= MOST_BYTES


def teacher_outputs(
    part: Model,
    split: Split,
    transform: InputTransform,
    device: Device,
    limit: int | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> TeacherOutputs:
    """What `part` gives for all examples of a training split; with a `limit`, zeros for those after the first so many.

    `before_batch` is called before each batch, and may raise.
    """
    session, ways = InferenceSession(part, device), variants(split, transform)
    shapes = {t.name: (tensor_shape(t) or ())[1:] for t in part.graph.outputs}
    tensors = {name: np.zeros((len(split) * ways, *map(int, shape)), np.float32) for name, shape in shapes.items()}
    done = 0
    for batch in ordered_batches(split.part(slice(limit)), transform, TEACHER_BATCH):
        before_batch()
        for way, data in enumerate(_ways(batch.data, ways)):
            found = session.outputs(filled_up(data, TEACHER_BATCH))
            rows = slice(done * ways + way, (done + len(data)) * ways, ways)
            for name, values in found.items():
                tensors[name][rows] = values[: len(data)]
        done += len(batch.data)
    return TeacherOutputs(tensors, ways)


def _ways(data: Data, count: int) -> list[Data]:
    return [data, data[..., ::-1]] if count > 1 and isinstance(data, np.ndarray) else [data]
