"""The form in which a network is delivered: it takes what the given network took, and says how to feed it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx

from wootz.passes.analysis.class_scores import score_kind
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import LARGEST_MESSAGE, load, save
from wootz.passes.ir.model import OPSET, Header, Model, constants
from wootz.passes.ir.rewrite import remaining_modules
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.plan.transform import CLASSES_KEY, TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.skipping import without_skipped
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.passes.transforms.set_interface import SetInterface
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.evaluation import EVALUATION_BATCH, accuracy
from wootz.runtime.job import Job
from wootz.runtime.latency import side_by_side
from wootz.runtime.result import LatencyResult
from wootz.runtime.session import Device, FileSession, InferenceSession, runs_opset

SCORES_KEY = "wootz.scores"
"""Metadata: whether the output gives logits, probabilities or log-probabilities."""
SIZE_KEY = "wootz.size"
"""Metadata: JSON, height and width of the images that the network was trained on."""
FOR_INFERENCE = "eliminate-dead,fold-constants,{}eliminate-dead"
LARGEST_LOSS = 0.01
"""The accuracy that a file may lack, of what the network has: other types of numbers are rounded otherwise."""
TRIED_IMAGES = 8
DIFFERENCE, DIFFERENCE_IN_HALF = 1e-3, 5e-2
"""Between scores in both forms, as max|a - b| / max|b|: far more than rounding, far less than a mistaken layout."""


def for_inference(job: Job, model: Model) -> Model:
    """The network as `best.onnx` has it: with the interface and description, and simplified.

    The table of modules, without those that are left out, stays where all of their boundaries do.
    """
    whole = with_interface(job, without_skipped(model))
    result = simplified(whole, job.keeps_batchnorm)
    keeps_all = remaining_modules(whole.modules, result.graph) == whole.modules
    return replace(result, modules=whole.modules if keeps_all else ())


def simplified(model: Model, keeps_batchnorm: bool = False) -> Model:
    """The network, or a piece of one, without a table of modules.

    What is computed from shapes and constants is one, Identity nodes are gone, and BatchNormalization is a part of the
    convolution before it unless it is to be kept.
    """
    passes = parse_pipeline(FOR_INFERENCE.format("" if keeps_batchnorm else "fold-batchnorm,"))
    return run_pipeline(replace(model, modules=()), passes, verify_each=False).model


def with_interface(job: Job, model: Model) -> Model:
    """The network as `teacher.onnx` has it: it takes and gives what the given network did, and is described.

    Where that took integers, a normalisation of pixels has to be a part of the network, and becomes one.
    """
    transform = job.test_transform
    described = {
        TRANSFORM_KEY: transform.to_json(),
        CLASSES_KEY: json.dumps(job.dataset.classes),
        SIZE_KEY: json.dumps(job.image_shape[1:]),
        SCORES_KEY: score_kind(infer_shapes(model).graph.outputs[0]),
    }
    model = replace(model, metadata={**model.metadata, **described})
    if job.embed_normalization or (_takes_integers(job.interface) and not transform.is_identity):
        model = EmbedNormalization().apply(model).model
    return in_given_form(job, model)


def in_given_form(job: Job, model: Model) -> Model:
    """A described classifier with the interface of the given network."""
    model = job.interface.apply(model).model
    return replace(model, header=Header(producer_version=metadata.version("wootz"), doc_string=_in_words(model)))


def _takes_integers(interface: SetInterface) -> bool:
    return np.dtype(interface.input_type).kind in "iu"


def _in_words(model: Model) -> str:
    """What the network takes and gives, for whoever looks into the file."""
    (image,), (scores,) = model.graph.inputs, model.graph.outputs
    transform = InputTransform.from_json(model.metadata[TRANSFORM_KEY])
    numbers = "pixels from 0 to 255"
    if transform.units != "0-255":
        numbers = "numbers as the arrays of the training have them, which are no pixels from 0 to 255"
    if not transform.is_identity:
        mean, scale = _listed(transform.mean), _listed(transform.scale)
        numbers = f"(pixel - mean) * scale with mean {mean} and scale {scale}, {numbers}"
    height, width = json.loads(model.metadata[SIZE_KEY])
    colours = "grey" if 1 in image.shape[1:] else transform.channel_order
    shape = ", ".join(map(str, image.shape))
    return (
        f"Input {image.name} [{shape}]: images of {height}x{width} ({transform.resize}) in {colours}, {numbers}. "
        f"Output {scores.name}: {model.metadata[SCORES_KEY]} of {len(json.loads(model.metadata[CLASSES_KEY]))} classes."
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@dataclass(frozen=True)
class Written:
    """A network in its delivered form, the file that has it, its opset, and the accuracy of the file.

    Where it can't be in the job's opset, `opset_reason` says why.
    """

    model: Model
    file: Path
    opset: int
    opset_reason: str
    accuracy: float

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self.file.stat().st_size


def write_network(job: Job, model: Model, name: str, expected: float, note: Callable[[str], None]) -> Written:
    """Writes a network in its delivered form into the run's folder (`write_file`).

    `expected` is the accuracy of the network that was trained; a file that falls short of it is none, and refused with
    WootzError. `note` is told where the network can't be in the job's opset.
    """
    file = job.out / name
    written = write_file(job, model, file)
    if written.opset_reason:
        note(f"{name} has opset {written.opset}: {written.opset_reason}")
    if written.accuracy < expected - max(LARGEST_LOSS, 1.5 / len(job.dataset.validation)):
        file.unlink()
        raise WootzError(
            f"{file}: the file gets {100 * written.accuracy:.2f} % of the validation images right, the network that "
            f"was trained {100 * expected:.2f} %, so it was removed; --opset {OPSET} --keep-batchnorm writes one with "
            f"fewer changes"
        )
    return written


def write_file(job: Job, model: Model, file: Path) -> Written:
    """Writes a network in its delivered form, and runs the file on the validation images, fed as its metadata say."""
    opset, reason = _possible_opset(model, job.opset)
    save(model, file, opset)
    measured = accuracy_of_file(job, file, opset, model.metadata, job.dataset.validation)
    return Written(model, file, opset, reason, measured)


def accuracy_of_file(job: Job, file: Path, opset: int, described: Mapping[str, str], split: Split) -> float:
    """That of a network in a file, fed as its metadata say."""
    predict = _predictor(job.interface, _open(file, opset, job.device))
    return accuracy(predict, split, InputTransform.from_json(described[TRANSFORM_KEY]))


def latencies_of_files(job: Job, files: Sequence[Path]) -> list[LatencyResult]:
    """Of the networks in files for one image, side by side."""
    image = _image_of(job.interface, job.image_shape)
    runs = [partial(_open(file, job.opset, job.device).run, image) for file in files]
    return [LatencyResult(**asdict(found)) for found in side_by_side(runs, len(image))]


def _image_of(interface: SetInterface, shape: tuple[int, int, int]) -> np.ndarray:
    """The smallest input, of zeros, of a network with that interface for images of `shape`."""
    channels, height, width = shape
    extents = (height, width, channels) if interface.layout == "NHWC" else shape
    return np.zeros((_batch(interface) or 1, *extents), np.dtype(interface.input_type))


def _batch(interface: SetInterface) -> int:
    """The number of images that it takes; 0 for any."""
    return int(interface.batch) if interface.batch.isdigit() else 0


def _open(file: Path, opset: int, device: Device) -> FileSession | InferenceSession:
    """The file itself, or what this ONNX Runtime can run of an opset that is newer than it."""
    return FileSession(str(file), device) if runs_opset(opset) else InferenceSession(load(file), device)


def _predictor(interface: SetInterface, session: FileSession | InferenceSession) -> Callable[[np.ndarray], np.ndarray]:
    """Scores [n, classes] of images float32 [n, channels, height, width], by a network with that interface."""
    batch = _batch(interface)

    def pieces(images: np.ndarray) -> Iterator[np.ndarray]:
        for first in range(0, len(images), batch or len(images)):
            piece = images[first : first + (batch or len(images))]
            yield np.resize(piece, (batch, *piece.shape[1:])) if batch else piece

    def predict(images: np.ndarray) -> np.ndarray:
        turned = images.transpose(0, 2, 3, 1) if interface.layout == "NHWC" else images
        given = np.ascontiguousarray(turned, np.dtype(interface.input_type))
        scores = np.concatenate([session.run(piece) for piece in pieces(given)])
        return scores[: len(images)].reshape(len(images), -1).astype(np.float32)

    return predict


def with_opset(job: Job, given: int, asked: int) -> Job:
    """The job with the opset of what it delivers: the `given` network's, unless another than 0 is `asked` for.

    The full network is brought into both forms that are delivered: what can't be is told before anything is trained.
    Raises WootzError where `rehearse_delivery` does in the opset asked for; where the network's own opset lacks
    something, the job has the IR's and a note.
    """
    told = replace(job, opset=asked or given)
    best = for_inference(job, job.network)
    try:
        rehearse_delivery(told, job.network, best)
    except WootzError as error:
        if asked:
            raise WootzError(f"--opset {asked}: {error}") from error
        if given == OPSET:
            raise
        note = f"best.onnx gets opset {OPSET}, not the network's {given}: {error}."
        told = replace(job, opset=OPSET, notes=(*job.notes, note))
        rehearse_delivery(told, job.network, best)
    full = with_interface(job, job.network)
    opset, _ = _possible_opset(full, told.opset)
    rehearse_delivery(replace(told, opset=opset), job.network, full)
    return told


def rehearse_delivery(job: Job, network: Model, delivered: Model) -> None:
    """Raises WootzError for a form of a network that isn't valid in the job's opset, or gives other scores than the
    network on a few images."""
    proto = _valid_proto(delivered, job.opset)
    if runs_opset(job.opset) and _is_small(delivered):
        _compare(job, network, delivered, FileSession(proto.SerializeToString(), job.device))


def _valid_proto(model: Model, opset: int) -> onnx.ModelProto:
    """The ONNX model, after all checks that there are. Raises WootzError, too, for what the opset lacks."""
    verify(model)
    proto = model.to_proto(opset)
    if _is_small(model):
        onnx.checker.check_model(proto, full_check=True)
    return proto


def _is_small(model: Model) -> bool:
    """Whether it can be one message, which ONNX's checker and a session of ONNX Runtime take."""
    return sum(values.nbytes for values in constants(model.graph).values()) <= LARGEST_MESSAGE


def _possible_opset(model: Model, opset: int) -> tuple[int, str]:
    """The opset if the network can be in it, else that of the IR, and why. Raises WootzError where it is not valid."""
    try:
        _valid_proto(model, opset)
    except WootzError as error:
        _valid_proto(model, OPSET)
        return OPSET, str(error)
    return opset, ""


def _compare(job: Job, network: Model, delivered: Model, session: FileSession) -> None:
    """Raises WootzError where the network gives other scores in its delivered form."""
    few = job.dataset.validation.part(slice(TRIED_IMAGES))
    transform = InputTransform.from_json(delivered.metadata[TRANSFORM_KEY])
    (own,) = ordered_batches(few, job.test_transform, EVALUATION_BATCH)
    (given,) = ordered_batches(few, transform, EVALUATION_BATCH)
    trained = InferenceSession(network, job.device)
    before = np.concatenate([trained.run(image[None]).reshape(1, -1) for image in own.data])
    after = _predictor(job.interface, session)(given.data)
    halves = "float16" in (job.interface.input_type, job.interface.output_type)
    allowed = (DIFFERENCE_IN_HALF if halves else DIFFERENCE) * float(np.abs(before).max())
    if np.isfinite(before).all() and not float(np.abs(after - before).max()) <= allowed:
        raise WootzError(
            f"the network gives other scores with the input that it came with ({_in_words(delivered)}): "
            f"they differ by {np.abs(after - before).max():.3g}; --opset {OPSET} --keep-batchnorm changes less"
        )
