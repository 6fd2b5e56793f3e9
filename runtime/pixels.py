"""How pixels become the input of a network that doesn't say it: nodes in its graph, its answers, its statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from wootz.passes.analysis.input_normalization import InputNormalization, input_normalization
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model, Node, Tensor, tensor_shape
from wootz.passes.ir.rewrite import erase_dead_nodes
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.pixel_conventions import IMAGENET_MEAN, RGB_CHANNELS, conventions_for
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.batches import normalize, ordered_batches
from wootz.runtime.data.dataset import Numbers, Split
from wootz.runtime.data.stored_images import Images
from wootz.runtime.guessing import above_guessing
from wootz.runtime.quality.showing import show
from wootz.runtime.session import CPU, Device, InferenceSession
from wootz.runtime.uncertainty import CLEARLY, PERHAPS, Share

IMAGES_TRIED = 300
BATCH = 50
BATCH_COMPARED = 10
LAYERS_COMPARED = 4
"""BatchNormalizations, the first ones, whose statistics are compared."""
IMAGES_COMPARED = 50
MOST_REVERSED = 3
"""Conventions, the best ones, that are tried in the other order of channels, too."""
CLOSE = 2.0
"""Distances whose quotient is below that may be so by chance."""
FAR = 0.25
"""A distance from which on two distributions have little in common; 1 is the largest."""
SMALLEST_VARIANCE = 1e-5
AS_GIVEN = "as given"
"""The only convention for numbers that are no pixels."""
UNITS = ("raw", "0..1", "-1..1")
"""The pixels of which networks compute their normalisation themselves."""

ChannelOrder = Literal["BGR", "RGB"]
Measuring = Callable[[str, Callable[[], Mapping[str, Any]]], Mapping[str, Any]]
"""Gives what its second argument measures, as plain data: now, or what was kept under that text, network and images."""


def _at_once(what: str, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    return measure()


@dataclass(frozen=True)
class Tried:
    """What a network makes of images under a convention, and by how many standard deviations it is above guessing."""

    accuracy: Share
    above_guessing: float


@dataclass(frozen=True)
class PixelChoice:
    """How pixels become the input, why, and what was measured: results by convention, the best first.

    `distances` are those of `statistics_distances`.
    """

    transform: InputTransform
    why: str = ""
    tried: Mapping[str, Tried] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PixelQuestion:
    """A network [N, channels, height, width] -> [N, classes], and the training images that it is given.

    `transform` is what is stated, `stated_by` by whom. Where that is empty, mean and scale are not known, nor is the
    order of channels unless `channel_order` is given. `is_trained` says that the network came with all its weights, for
    the classes of the images; `may_guess`, that a network will do that doesn't know them. `numbers` says what arrays
    held: numbers that are no pixels are tried as they are. `measuring` is asked for all that the network is executed
    for.
    """

    model: Model
    images: Split
    transform: InputTransform
    stated_by: str = ""
    channel_order: ChannelOrder | None = None
    is_trained: bool = True
    may_guess: bool = False
    numbers: Numbers = "pixels"
    device: Device = CPU
    measuring: Measuring = _at_once


def choose_pixels(question: PixelQuestion) -> PixelChoice:
    """Answers by the first of these that can tell.

    1. What is stated, and nodes behind the input that normalise it (`input_normalization`): they decide the units.
    2. A trial of the usual conventions on labelled training images, where the network is for their classes.
    3. The running statistics of its first BatchNormalizations, which one convention matches best; they also decide
       between conventions of which none is clearly the best in the trial.

    What nobody stated gives way to the same with the channels the other way round where that is clearly better.

    Raises WootzError where a network that should know the classes only guesses, whatever the convention.
    """
    candidates = _candidates(question)
    first = _first(question, candidates)
    if not question.is_trained:
        return first or _by_statistics(question, candidates)
    if first is not None:
        alone = try_conventions(question, {"": first.transform})
        if _knows(alone):
            stays = question.stated_by or question.numbers == "as given"
            return first if stays else _reconsidered(question, first, candidates, alone[""].accuracy)
        if question.stated_by:
            return _guessing(question, first, try_conventions(question, {**candidates, "as stated": first.transform}))
    tried = try_conventions(question, candidates)
    best = {name: candidates[name] for name in list(tried)[:MOST_REVERSED]}
    if _knows(tried):
        choice = _by_answers(question, candidates, tried)
        return _reconsidered(question, choice, best, next(iter(tried.values())).accuracy)
    reversed_ = _reversed_channels(question, best)
    tried_reversed = try_conventions(question, reversed_) if reversed_ else {}
    if _knows(tried_reversed):
        return _by_answers(question, reversed_, tried_reversed)
    return _guessing(question, first or _by_statistics(question, candidates), {**tried, **tried_reversed})


def _first(question: PixelQuestion, candidates: Mapping[str, InputTransform]) -> PixelChoice | None:
    """What is taken without a trial, if the network then knows the classes."""
    if question.stated_by:
        return PixelChoice(question.transform)
    if question.numbers == "as given":
        return PixelChoice(candidates[AS_GIVEN])
    return _by_nodes(question, candidates)


def _candidates(question: PixelQuestion) -> dict[str, InputTransform]:
    if question.numbers == "as given":
        order = question.channel_order or question.transform.channel_order
        return {AS_GIVEN: replace(question.transform, mean=(0.0,), scale=(1.0,), channel_order=order)}
    channels = _pixels(question.images).shape[1]
    known = conventions_for(channels)
    found = {name: c.applied(question.transform, question.channel_order) for name, c in known.items()}
    if "caffe" in known and question.transform.channel_order == "BGR" and not question.channel_order:
        found["caffe RGB"] = known["caffe"].applied(question.transform, "RGB")
    return found


def _reversed_channels(question: PixelQuestion, transforms: Mapping[str, InputTransform]) -> dict[str, InputTransform]:
    """The transforms for the other order of channels, numbers with their colours, where nobody gave the order."""
    if question.channel_order or question.numbers == "as given":
        return {}
    if _pixels(question.images).shape[1] != RGB_CHANNELS:
        return {}
    found: dict[str, InputTransform] = {}
    for name, transform in transforms.items():
        order: ChannelOrder = "RGB" if transform.channel_order == "BGR" else "BGR"
        reversed_ = replace(transform, mean=transform.mean[::-1], scale=transform.scale[::-1], channel_order=order)
        if reversed_ not in transforms.values():
            found[f"{name.removesuffix(' RGB').removesuffix(' BGR')} {order}"] = reversed_
    return found


# By the nodes of the graph


def _by_nodes(question: PixelQuestion, candidates: Mapping[str, InputTransform]) -> PixelChoice | None:
    found = input_normalization(question.model)
    if found is None:
        return None
    images = np.asarray(_pixels(_some(question.images, IMAGES_COMPARED)))
    name = units_before(found, images, {name: candidates[name] for name in UNITS}, candidates)
    transform = candidates[name]
    if question.channel_order is None and _subtracts_mean_in_bgr(found, transform):
        transform = replace(transform, channel_order="BGR")
    why = (
        f"The network normalises its input itself ({', '.join(found.operators)}): it is given pixels {_units(name)}, "
        f"{transform.channel_order}."
    )
    return PixelChoice(transform, why)


def units_before(
    nodes: InputNormalization,
    images: np.ndarray,
    units: Mapping[str, InputTransform],
    usual: Mapping[str, InputTransform],
) -> str:
    """Those of the `units` from which the `nodes` make what the BatchNormalization behind them was trained on, or what
    is `usual` and not these units again."""
    expected = {name: _moments(images, transform) for name, transform in usual.items()}

    def nearest(name: str) -> float:
        wanted = [moments for other, moments in expected.items() if other != name]
        distances = []
        for turn in (1, -1):  # colours in either order
            mean, variance = (values[::turn] for values in _moments(images, units[name]))
            made = nodes.factor * mean + nodes.offset, nodes.factor**2 * variance
            reversed_ = [(m[::turn], v[::turn]) for m, v in wanted] if nodes.expected is None else [nodes.expected]
            distances += [float(np.mean(bhattacharyya_distances(*made, *moments))) for moments in reversed_]
        return min(distances)

    return min(units, key=nearest)


def _subtracts_mean_in_bgr(nodes: InputNormalization, transform: InputTransform) -> bool:
    """Whether the pixels of which the nodes make 0 are ImageNet's mean from blue to red."""
    if len(nodes.factor) != len(IMAGENET_MEAN) or not np.all(nodes.factor):
        return False
    pixels = -nodes.offset / nodes.factor / np.array(transform.scale) + np.array(transform.mean)
    return bool(np.allclose(pixels, IMAGENET_MEAN[::-1], atol=2))


def _moments(images: np.ndarray, transform: InputTransform) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel."""
    values = normalize(images, transform).astype(np.float64)
    return values.mean((0, 2, 3)), values.var((0, 2, 3))


def _units(name: str) -> str:
    return "from 0 to 255" if name == "raw" else name


# By its answers


def try_conventions(question: PixelQuestion, transforms: Mapping[str, InputTransform]) -> dict[str, Tried]:
    """What the network makes of up to `IMAGES_TRIED` training images under each of the transforms, the best first.

    After each batch those drop out that are clearly worse than the best (`CLEARLY`, two-proportion z-test); the trial
    ends when one is left that is clearly above guessing.
    """
    what = f"right answers with {transforms}, up to {IMAGES_TRIED} images by {BATCH}, without those {CLEARLY} worse"
    found = question.measuring(what, lambda: {name: astuple(t) for name, t in _trial(question, transforms).items()})
    return {name: Tried(Share(*share), above) for name, (share, above) in found.items()}


def _trial(question: PixelQuestion, transforms: Mapping[str, InputTransform]) -> dict[str, Tried]:
    images = _some(question.images, IMAGES_TRIED)
    session = InferenceSession(question.model, question.device)
    answers = {name: np.empty(0, np.int64) for name in transforms}
    tried: dict[str, Tried] = {}
    racing = list(transforms)
    for start in range(0, len(images), BATCH):
        labels = images.classes[: start + BATCH]
        batch = Split(images.images[start : start + BATCH], labels[start:])
        for name in racing:
            answers[name] = np.concatenate([answers[name], _answers(session, batch, transforms[name])])
            share = Share(float(np.mean(answers[name] == labels)), len(labels))
            tried[name] = Tried(share, above_guessing(answers[name], labels))
        best = max((tried[name] for name in racing), key=lambda found: found.accuracy.accuracy)
        racing = [name for name in racing if best.accuracy.above(tried[name].accuracy) < CLEARLY]
        if len(racing) == 1 and best.above_guessing >= CLEARLY:
            break
    order = sorted(tried, key=lambda name: (name not in racing, -tried[name].accuracy.accuracy))
    return {name: tried[name] for name in order}


def _answers(session: InferenceSession, images: Split, transform: InputTransform) -> np.ndarray:
    """The class with the largest score for each image; -1 where a score is no number."""
    (batch,) = ordered_batches(images, transform, len(images))
    scores = session.run(batch.data).reshape(len(images), -1)
    answers: np.ndarray = np.where(np.isnan(scores).any(axis=1), -1, np.argmax(scores, axis=1))
    return answers


def _knows(tried: Mapping[str, Tried]) -> bool:
    """Whether the network clearly does better than guess under one of the conventions."""
    return any(found.above_guessing >= CLEARLY for found in tried.values())


def _by_answers(
    question: PixelQuestion, candidates: Mapping[str, InputTransform], tried: Mapping[str, Tried]
) -> PixelChoice:
    best = next(iter(tried))
    alike = [name for name in tried if tried[best].accuracy.above(tried[name].accuracy) < PERHAPS]
    if len(alike) == 1:
        why = f"{_is_taken(best)}, by a trial on training images ({_table(tried)})."
        return PixelChoice(candidates[best], why, tried)
    distances = statistics_distances(question, {name: candidates[name] for name in alike})
    name = next(iter(distances), best)
    by = f"by its BatchNormalizations ({_distances(distances)})" if distances else "the best"
    why = (
        f"{_is_taken(name)}, {by}, since a trial on training images does not tell {' from '.join(alike)} "
        f"({_table(tried)}); --normalize says otherwise."
    )
    return PixelChoice(candidates[name], why, tried, distances)


def _reconsidered(
    question: PixelQuestion, choice: PixelChoice, usual: Mapping[str, InputTransform], accuracy: Share
) -> PixelChoice:
    """`choice`, of that `accuracy`, unless the answers are clearly better with the `usual` conventions, or in the other
    order of channels; for that it is enough that they are better, where the statistics can tell."""
    if Share(1.0, accuracy.images).above(accuracy) < PERHAPS:
        return choice
    name = next((name for name, transform in usual.items() if transform == choice.transform), "as found")
    racing = {name: choice.transform, **usual}
    racing |= _reversed_channels(question, racing)
    tried = try_conventions(question, racing)
    best = next(iter(tried))
    if tried[best].accuracy.above(tried[name].accuracy) >= CLEARLY:
        return _by_answers(question, racing, tried)
    if best not in _reversed_channels(question, {name: choice.transform}):
        return choice
    distances = statistics_distances(question, {other: racing[other] for other in (name, best)})
    if not distances or CLOSE * distances[best] >= distances[name]:
        return choice
    why = (
        f"{_is_taken(best)}, by a trial on training images ({_table(tried)}) and by its BatchNormalizations "
        f"({_distances(distances)})."
    )
    return PixelChoice(racing[best], why, tried, distances)


def _guessing(question: PixelQuestion, otherwise: PixelChoice, tried: Mapping[str, Tried]) -> PixelChoice:
    """`otherwise`, where the network may guess. Raises WootzError where it may not."""
    table = _table(tried)
    if _knows(tried):
        best = next(iter(tried))
        fault = f"on pixels as {question.stated_by} has them the network only guesses: {table}"
        advice = "give --mean 0 --scale 1, or" if best == AS_GIVEN else f"give --normalize {best}, or"
    else:
        fault = f"the network only guesses, on training images and whatever it is given: {table}"
        other = "numbers (--mean, --scale)" if question.numbers == "as given" else "pixels (--normalize MEAN:STD)"
        advice = (
            f"was it trained, for these classes, in this order (--classes says which output a class is), on other "
            f"{other}? --new-head trains its last layer anew,"
        )
    if not question.may_guess:
        raise WootzError(f"{fault}; {advice} --allow-untrained goes on")
    warning = f"{fault[:1].upper()}{fault[1:]}."
    return replace(otherwise, why=" ".join(filter(None, (warning, otherwise.why))), tried=tried)


def _table(tried: Mapping[str, Tried]) -> str:
    return ", ".join(
        f"{name} {show(Metric.ACCURACY, t.accuracy.accuracy, t.accuracy.images)}" for name, t in tried.items()
    )


# By its statistics


def _by_statistics(question: PixelQuestion, candidates: Mapping[str, InputTransform]) -> PixelChoice:
    distances = statistics_distances(question, candidates)
    if not distances:
        name = _likeliest(question)
        why = (
            f"Nothing tells how pixels become the network's input (no BatchNormalization whose statistics could): "
            f"{name} is taken; --normalize says otherwise."
        )
        return PixelChoice(candidates[name], why)
    reversed_ = _reversed_channels(question, {name: candidates[name] for name in list(distances)[:MOST_REVERSED]})
    distances_reversed = statistics_distances(question, reversed_) if reversed_ else {}
    if distances_reversed and CLOSE * min(distances_reversed.values()) < min(distances.values()):
        candidates = {**candidates, **reversed_}
        distances = dict(sorted({**distances, **distances_reversed}.items(), key=lambda item: item[1]))
    best, *others = distances
    why = (
        f"{_is_taken(best)}, the nearest to what the network's first BatchNormalizations were trained on "
        f"({_distances(distances)})"
    )
    if distances[best] > FAR:
        why += "; none is near: --normalize says otherwise"
    elif others and distances[others[0]] < CLOSE * distances[best]:
        why += f"; {others[0]} is close: --normalize says otherwise"
    return PixelChoice(candidates[best], f"{why}.", distances=distances)


def _is_taken(name: str) -> str:
    return f"How pixels become the input: {name} is taken"


def _likeliest(question: PixelQuestion) -> str:
    """What most networks want, where nothing tells; arrays of other numbers than uint8 are rather for the network."""
    images = _pixels(question.images)
    if question.numbers == "fractions":
        return "0..1"
    if images.dtype != np.uint8:
        return "raw"
    return "imagenet" if "imagenet" in conventions_for(images.shape[1]) else "0..1"


def statistics_distances(question: PixelQuestion, transforms: Mapping[str, InputTransform]) -> dict[str, float]:
    """How far, under each of the transforms, what the network's first BatchNormalizations read is from their running
    mean and variance: the mean of `hellinger_distance` over these layers, the least first. Empty without such layers.
    """
    first = f"the first {LAYERS_COMPARED} BatchNormalizations on {IMAGES_COMPARED} images"
    found = question.measuring(f"distances of {first} with {transforms}", lambda: _distances_of(question, transforms))
    return {name: float(distance) for name, distance in found.items()}


def _distances_of(question: PixelQuestion, transforms: Mapping[str, InputTransform]) -> dict[str, float]:
    model = question.model.copy()
    annotate_shapes(model.graph)
    layers = _first_batch_normalizations(model)
    if not layers:
        return {}
    session = InferenceSession(_moments_model(model, layers), question.device)
    images = _some(question.images, IMAGES_COMPARED)
    distances = {}
    for name, transform in transforms.items():
        batches = [(len(b.data), session.run(b.data)) for b in ordered_batches(images, transform, BATCH_COMPARED)]
        moments = np.average([m for _, m in batches], axis=0, weights=[n for n, _ in batches]).astype(np.float64)
        distances[name] = float(np.mean(_layer_distances(layers, moments)))
    distances = {name: d if np.isfinite(d) else 1.0 for name, d in distances.items()}
    return dict(sorted(distances.items(), key=lambda item: item[1]))


def hellinger_distance(
    mean: np.ndarray, variance: np.ndarray, other_mean: np.ndarray, other_variance: np.ndarray
) -> float:
    """The squared Hellinger distance, 0 to 1, of normal distributions, one a channel: its mean over the channels."""
    return float(np.mean(1 - np.exp(-bhattacharyya_distances(mean, variance, other_mean, other_variance))))


def bhattacharyya_distances(
    mean: np.ndarray, variance: np.ndarray, other_mean: np.ndarray, other_variance: np.ndarray
) -> np.ndarray:
    """Of normal distributions, one a channel, without an upper bound: the logarithm of their affinity."""
    v, w = variance + SMALLEST_VARIANCE, other_variance + SMALLEST_VARIANCE
    distances: np.ndarray = (mean - other_mean) ** 2 / (4 * (v + w)) + np.log(
        (v + w) / (2 * np.sqrt(v) * np.sqrt(w))
    ) / 2
    return distances


def _layer_distances(layers: list[Node], moments: np.ndarray) -> list[float]:
    """`moments` has for each layer the means of its operand and of its square, a channel after the other."""
    distances = []
    for node in layers:
        expected_mean, expected_variance = (operand.values.astype(np.float64) for operand in node.inputs[3:5])
        channels = len(expected_mean)
        mean, square, moments = moments[:channels], moments[channels : 2 * channels], moments[2 * channels :]
        distances.append(hellinger_distance(mean, np.maximum(square - mean**2, 0), expected_mean, expected_variance))
    return distances


def _first_batch_normalizations(model: Model) -> list[Node]:
    """Of images, with statistics that are constants."""
    found = (
        node
        for node in model.graph.nodes
        if node.op == "BatchNormalization"
        and len(tensor_shape(node.inputs[0]) or ()) == 4
        and all(isinstance(operand, Constant) for operand in node.inputs[3:5])
    )
    return [node for node, _ in zip(found, range(LAYERS_COMPARED), strict=False)]


def _moments_model(model: Model, layers: list[Node]) -> Model:
    """Gives the mean and the mean square of each channel that the `layers` read, all in one row."""
    result = model.copy()
    graph, build = result.graph, Builder(result.graph)
    tensors = graph.tensors()
    axes = build.constant([0, 2, 3], "axes")
    rows: list[Tensor] = []
    for node in layers:
        operand = tensors[node.inputs[0].name]
        for values in (operand, build.op("Mul", operand, operand, hint="square")):
            rows.append(build.op("ReduceMean", values, axes, keepdims=0, hint="moment"))
    row = build.op("Concat", *rows, axis=0, hint="moments")
    row.dtype, row.shape = np.dtype(np.float32), None
    graph.outputs = [row]
    erase_dead_nodes(graph)
    return replace(result, modules=())


def _distances(distances: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {distance:.3f}" for name, distance in distances.items())


def _pixels(images: Split) -> Images:
    """The pixels that the question is about; those of several inputs are all taken alike."""
    assert images.pixels is not None, "numbers that are no pixels are as given"
    return images.pixels


def _some(images: Split, count: int) -> Split:
    """Up to so many of the images, the same ones each time."""
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    part = images.part(chosen)
    return Split(part.images[:], part.labels)
