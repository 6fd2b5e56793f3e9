"""The form in which a network is delivered: it takes what the given network took, and says how to feed it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from wootz.passes.analysis.class_scores import score_kind
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import LARGEST_MESSAGE, load, save
from wootz.passes.ir.model import OPSET, Header, Model, Tensor, constants
from wootz.passes.ir.rewrite import remaining_modules
from wootz.passes.ir.shapes import infer_shapes
from wootz.passes.ir.verifier import verify
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.plan.transform import CLASSES_KEY, TRANSFORM_KEY, InputTransform
from wootz.passes.pruning.skipping import without_skipped
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.passes.transforms.image_classifier import is_classifier, takes_images
from wootz.passes.transforms.set_interface import SetInterface
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.evaluation import EVALUATION_BATCH
from wootz.runtime.inputs import Data, Inputs, filled_up, zeros
from wootz.runtime.job import Job
from wootz.runtime.latency import side_by_side
from wootz.runtime.quality.measuring import Predict, Reference, measured
from wootz.runtime.quality.quality import Outputs
from wootz.runtime.quality.showing import show_reached
from wootz.runtime.result import LatencyResult
from wootz.runtime.run_directory import TEACHER_FILE
from wootz.runtime.session import Device, FileSession, InferenceSession, runs_opset

SCORES_KEY = "wootz.scores"
"""Metadata: whether the output gives logits, probabilities or log-probabilities."""
SIZE_KEY = "wootz.size"
"""Metadata: JSON, height and width of the images that the network was trained on."""
FOR_INFERENCE = "eliminate-dead,fold-constants,{}eliminate-dead"
LARGEST_LOSS = 0.01
"""What a file may lack of the network's quality, of shares absolutely: other types of numbers are rounded otherwise."""
UNNAMED = "unk__"
"""What ONNX calls extents that it has no name for begins so."""
LEAST_SCALE = 0.1
"""Of qualities that are numbers: what is less counts as so much."""
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
    size = {SIZE_KEY: json.dumps(job.image_shape[1:])} if takes_images(model.graph) else {}
    described = {TRANSFORM_KEY: transform.to_json(), **size, **_described_scores(job, model)}
    model = replace(model, metadata={**model.metadata, **described})
    if job.embed_normalization or (_takes_integers(job.interface) and not transform.is_identity):
        model = EmbedNormalization().apply(model).model
    return in_given_form(job, model)


def _described_scores(job: Job, model: Model) -> dict[str, str]:
    """What the scores of a classifier are, and of which classes, where the data say that."""
    if not is_classifier(model):
        return {}
    classes = {CLASSES_KEY: json.dumps(job.dataset.classes)} if job.dataset.classes else {}
    return {**classes, SCORES_KEY: score_kind(infer_shapes(model).graph.outputs[0])}


def in_given_form(job: Job, model: Model) -> Model:
    """A described network with the interface of the given one."""
    model = job.interface.apply(model).model
    return described(job, model, [output.name for output in model.graph.outputs])


def described(job: Job, model: Model, scores: Collection[str]) -> Model:
    """A network that says in words what it takes and gives; those outputs of a classifier are `scores` of classes."""
    words = _in_words(model, pixels_of(job), scores)
    return replace(model, header=Header(producer_version=metadata.version("wootz"), doc_string=words))


def pixels_of(job: Job) -> tuple[str, ...]:
    """The names of the inputs that take pixels, or of several inputs those that the data have pixels for."""
    images = job.dataset.train.images
    return images.pixels if isinstance(images, Inputs) else (job.network.graph.inputs[0].name,)


def _takes_integers(interface: SetInterface) -> bool:
    return np.dtype(interface.input_type).kind in "iu"


def _in_words(model: Model, pixels: Collection[str], scores: Collection[str] = ()) -> str:
    """What the network takes and gives, for whoever looks into the file."""
    transform = InputTransform.from_json(model.metadata[TRANSFORM_KEY])
    inputs = [_input_in_words(model, source, transform, source.name in pixels) for source in model.graph.inputs]
    return " ".join(
        [*inputs, *(_output_in_words(model, output, output.name in scores) for output in model.graph.outputs)]
    )


def _input_in_words(model: Model, source: Tensor, transform: InputTransform, is_pixels: bool) -> str:
    shape = ", ".join(map(str, source.shape))
    if not is_pixels:
        return f"Input {source.name} [{shape}]: {np.dtype(source.dtype).name}, as the arrays of the training have it."
    numbers = "pixels from 0 to 255"
    if transform.units != "0-255":
        numbers = "numbers as the arrays of the training have them, which are no pixels from 0 to 255"
    if not transform.is_identity:
        mean, scale = _listed(transform.mean), _listed(transform.scale)
        numbers = f"(pixel - mean) * scale with mean {mean} and scale {scale}, {numbers}"
    size = ""
    if SIZE_KEY in model.metadata:
        height, width = json.loads(model.metadata[SIZE_KEY])
        size = f" of {height}x{width} ({transform.resize})"
    colours = "grey" if 1 in source.shape[1:] else transform.channel_order
    return f"Input {source.name} [{shape}]: images{size} in {colours}, {numbers}."


def _output_in_words(model: Model, output: Tensor, has_scores: bool) -> str:
    shape = "of any shape"
    if output.shape is not None:
        shape = f"[{', '.join('?' if str(n).startswith(UNNAMED) else str(n) for n in output.shape)}]"
    if SCORES_KEY not in model.metadata or not has_scores:
        return f"Output {output.name} {shape}."
    classes = classes_of(model.metadata)
    of_classes = f" of {len(classes)} classes" if classes else f" {shape}"
    return f"Output {output.name}: {model.metadata[SCORES_KEY]}{of_classes}."


def classes_of(described: Mapping[str, str]) -> tuple[str, ...]:
    """The names of a network's classes; none where nobody has said them."""
    return tuple(json.loads(described.get(CLASSES_KEY, "[]")))


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@dataclass(frozen=True)
class Written:
    """A network in its delivered form, the file that has it, its opset, and the quality of the file.

    Where it can't be in the job's opset, `opset_reason` says why.
    """

    model: Model
    file: Path
    opset: int
    opset_reason: str
    quality: float

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self.file.stat().st_size


def write_network(
    job: Job,
    model: Model,
    name: str,
    expected: float,
    note: Callable[[str], None],
    reference: Reference | None = None,
) -> Written:
    """Writes a network in its delivered form into the run's folder (`write_file`).

    `expected` is the quality of the network that was trained, beside `reference`, the full one; a file that falls short
    of it is none, and refused with WootzError. `note` is told where the network can't be in the job's opset.
    """
    file = job.out / name
    written = write_file(job, model, file, reference)
    if written.opset_reason:
        note(f"{name} has opset {written.opset}: {written.opset_reason}")
    metric = job.quality.metric
    if metric.sign * (expected - written.quality) > _allowed_loss(job, expected):
        file.unlink()
        raise WootzError(
            f"{file}: on the validation images the file has {show_reached(metric, written.quality)}, the network that "
            f"was trained {show_reached(metric, expected)}, so it was removed; --opset {OPSET} --keep-batchnorm writes "
            f"one with fewer changes"
        )
    return written


def _allowed_loss(job: Job, expected: float) -> float:
    if job.quality.metric.is_share:
        return max(LARGEST_LOSS, 1.5 / len(job.dataset.validation))
    return LARGEST_LOSS * max(LEAST_SCALE, abs(expected))


def write_file(job: Job, model: Model, file: Path, reference: Reference | None = None) -> Written:
    """Writes a network in its delivered form, and runs the file on the validation images, fed as its metadata say,
    where its quality is measured beside `reference`, where that compares."""
    opset, reason = _possible_opset(model, job.opset)
    save(model, file, opset)
    quality = quality_of_file(job, file, opset, model.metadata, job.dataset.validation, reference)
    return Written(model, file, opset, reason, quality)


def quality_of_file(
    job: Job, file: Path, opset: int, described: Mapping[str, str], split: Split, reference: Reference | None
) -> float:
    """That of a network in a file, fed as its metadata say, beside the full one."""
    predict = predictor(job.interface, open_file(file, opset, job.device))
    transform = InputTransform.from_json(described[TRANSFORM_KEY])
    return measured(job.quality, predict, split, transform, reference)


def latencies_beside_full(job: Job, files: Sequence[Path]) -> list[LatencyResult]:
    """Of the full network, and of the networks in files, for one image, side by side.

    The full network is simplified as those in files are: what makes them faster is pruning alone.
    """
    image = _zeros(job)
    with TemporaryDirectory(prefix="wootz-full-") as folder:
        full = Path(folder) / TEACHER_FILE
        save(simplified(load(job.out / TEACHER_FILE), job.keeps_batchnorm), full, job.opset)
        runs = [partial(open_file(file, job.opset, job.device).run, image) for file in (full, *files)]
        return [LatencyResult(**asdict(found)) for found in side_by_side(runs, len(image))]


def _zeros(job: Job) -> Data:
    """The smallest input, of zeros, of a network in its delivered form."""
    return in_given_types(zeros(job.network, batch_of(job.interface) or 1), job.interface)


def in_given_types(data: Data, interface: SetInterface) -> Data:
    """Samples as the network takes them in training, as a network with that interface takes them."""
    dtype = np.dtype(interface.input_type)
    if isinstance(data, Inputs):
        return data.mapped(lambda values: values.astype(dtype) if values.dtype == np.float32 else values)
    turned = data.transpose(0, 2, 3, 1) if interface.layout == "NHWC" else data
    return np.ascontiguousarray(turned, dtype)


def batch_of(interface: SetInterface) -> int:
    """The number of images that it takes; 0 for any."""
    return int(interface.batch) if interface.batch.isdigit() else 0


def open_file(file: Path, opset: int, device: Device) -> FileSession | InferenceSession:
    """The file itself, or what this ONNX Runtime can run of an opset that is newer than it."""
    return FileSession(str(file), device) if runs_opset(opset) else InferenceSession(load(file), device)


def predictor(interface: SetInterface, session: FileSession | InferenceSession) -> Predict:
    """The outputs for samples as the network takes them in training, scores as [n, classes], of a network with that
    interface."""
    batch = batch_of(interface)

    def pieces(data: Data) -> Iterator[Data]:
        for first in range(0, len(data), batch or len(data)):
            piece = data[first : first + (batch or len(data))]
            yield piece if not batch else filled_up(piece, batch)

    def predict(data: Data) -> Outputs:
        found = [session.outputs(piece) for piece in pieces(in_given_types(data, interface))]
        whole = {name: np.concatenate([outputs[name] for outputs in found])[: len(data)] for name in found[0]}
        return {name: in_trained_form(values) for name, values in whole.items()}

    def in_trained_form(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1) if interface.output_rank > 2 else values
        return flat.astype(np.float32) if flat.dtype.kind == "f" else flat

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
    """The ONNX model, after all checks that there are. Raises WootzError, too, for what the opset lacks, and for an
    output without a shape, which ONNX demands."""
    verify(model)
    if unknown := [output.name for output in model.graph.outputs if output.shape is None]:
        raise WootzError(
            f"output {unknown[0]}: its shape is not known: export the network with the shapes of what operators of "
            "other domains give"
        )
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
    alone = [trained.outputs(own.data[i : i + 1]) for i in range(len(own.data))]
    halves = "float16" in (job.interface.input_type, job.interface.output_type)
    share = DIFFERENCE_IN_HALF if halves else DIFFERENCE
    for name, after in zip(alone[0], predictor(job.interface, session)(given.data).values(), strict=True):
        before = np.concatenate([outputs[name].reshape(1, -1) for outputs in alone]).astype(np.float64)
        difference = float(np.abs(after.reshape(before.shape) - before).max(initial=0))
        if np.isfinite(before).all() and not difference <= share * float(np.abs(before).max(initial=0)):
            words = _in_words(delivered, pixels_of(job))
            raise WootzError(
                f"the network gives other outputs with the input that it came with ({words}): {name} "
                f"differs by {difference:.3g}; --opset {OPSET} --keep-batchnorm changes less"
            )
