"""How pixels become the network's input: what the options of `wootz run` say of it, or what was found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from wootz.frontend.caffe.importer import ImportedNetwork
from wootz.passes.errors import InputError, WootzError, reading
from wootz.passes.ir.model import Model, tensor_shape
from wootz.passes.plan.pixel_conventions import read_convention
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Dataset, Split
from wootz.runtime.job import check_channels
from wootz.runtime.pixels import PixelChoice, PixelQuestion, choose_pixels
from wootz.runtime.run_directory import PIXELS_FILE
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.recipe import Digests, EvaluationRecipe
from wootz.tools.companions import RunFiles
from wootz.tools.data import Transforms

OPTIONS = ("normalize", "mean", "scale")
"""Those that say how pixels become the input; the order of channels alone doesn't."""


@dataclass(frozen=True)
class Pixels:
    """The transforms of a run, and where they come from. `chosen` is the file, by name, that it writes of what nobody
    gave."""

    train_transform: InputTransform
    test_transform: InputTransform
    source: str
    notes: tuple[str, ...] = ()
    chosen: Mapping[str, bytes] = field(default_factory=dict)


class PixelsFile(msgspec.Struct, frozen=True, kw_only=True):
    """`pixels.json`: `(pixel - mean) * scale` on pixels 0-255, and why; accuracies and distances by convention."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    channel_order: Literal["BGR", "RGB"]
    why: str = ""
    accuracies: dict[str, float] = {}
    distances: dict[str, float] = {}

    @staticmethod
    def of(choice: PixelChoice) -> PixelsFile:
        return PixelsFile(
            mean=choice.transform.mean,
            scale=choice.transform.scale,
            channel_order=choice.transform.channel_order,
            why=choice.why,
            accuracies={name: tried.accuracy.accuracy for name, tried in choice.tried.items()},
            distances=dict(choice.distances),
        )

    def to_bytes(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def applied(self, transform: InputTransform) -> InputTransform:
        return replace(transform, mean=self.mean, scale=self.scale, channel_order=self.channel_order)


def read_pixels(file: Path) -> PixelsFile:
    """Raises InputError for a file that does not say how pixels become an input."""
    with reading(file, "a pixels.json"):
        found = msgspec.json.decode(file.read_bytes(), type=PixelsFile)
    if not found.mean or not found.scale or 0 in found.scale:
        raise InputError("mean and scale have to have numbers, scale none that is 0", file)
    return found


def as_stated(transform: InputTransform, options: Mapping[str, Any]) -> InputTransform:
    """What the options say, and `transform` for the rest. Raises WootzError for options that contradict each other."""
    normalize, order = options["normalize"], options["channel_order"]
    if normalize is not None and (options["mean"] or options["scale"]):
        raise WootzError("--normalize says what --mean and --scale say: give it, or these")
    if normalize is not None:
        transform = read_convention(normalize).applied(transform, order)
    given: dict[str, Any] = {
        "mean": _numbers("--mean", options["mean"]),
        "scale": _numbers("--scale", options["scale"]),
        "channel_order": order,
        "mirror": options["mirror"],
    }
    return replace(transform, **{name: value for name, value in given.items() if value is not None})


def find_pixels(
    network: ImportedNetwork,
    dataset: Dataset,
    transforms: Transforms,
    options: Mapping[str, Any],
    run_files: RunFiles | None,
    device: Device,
    open_store: Callable[[], Store],
) -> Pixels:
    """`transforms`, where the options or the network's file say how pixels become the input; else with what the run of
    `run_files` found out, or is found out now (`runtime.pixels`). What is measured for that is kept in the store.

    Raises WootzError for a network that only guesses where it should know the classes.
    """
    train, test = transforms
    by_option = next((f"--{name}" for name in OPTIONS if options[name] is not None), "")
    stated_by = by_option or ("the network's file" if network.says_pixels else "")
    if (pixels := dataset.train.pixels) is not None:
        check_channels(test, pixels.shape[1])
    else:
        _check_nothing_said(options)
    file = run_files.folder / PIXELS_FILE if run_files is not None and not stated_by else None
    if file is not None and file.is_file():
        return _pixels(read_pixels(file), train, test)
    if dataset.numbers == "as given" and options["normalize"] not in (None, "raw"):
        raise WootzError(
            f"--normalize {options['normalize']} is for pixels, and the arrays have negative numbers, or other "
            f"channels than images: they are taken as they are; --mean and --scale say what else they need"
        )
    if dataset.numbers == "fractions" and not by_option and stated_by and network.initialised and test.is_identity:
        train, test = (replace(transform, scale=(1 / 255,)) for transform in (train, test))
        return Pixels(train, test, "the network is trained on pixels from 0 to 1, as the arrays have them")
    choice = choose_pixels(
        PixelQuestion(
            model=network.model,
            images=dataset.train,
            transform=test,
            stated_by=stated_by,
            channel_order=options["channel_order"],
            is_trained=dataset.train.has_classes
            and not network.initialised
            and _outputs(network) == len(dataset.classes),
            numbers=dataset.numbers,
            may_guess=options["allow_untrained"],
            device=device,
            measuring=partial(_measured, open_store, network.model, dataset.train, device),
        )
    )
    if stated_by:
        return Pixels(train, test, f"said by {stated_by}", tuple(filter(None, (choice.why,))))
    return _pixels(PixelsFile.of(choice), train, test)


def _check_nothing_said(options: Mapping[str, Any]) -> None:
    """Raises WootzError for options about pixels, where no input has any."""
    for name in (*OPTIONS, "channel_order", "mirror", "embed_normalization"):
        if options[name]:
            raise WootzError(
                f"--{name.replace('_', '-')} is about pixels, and no input is given any: pixels are uint8 "
                f"[n, channels, height, width], all other arrays go to the network as they are"
            )


def _measured(
    open_store: Callable[[], Store],
    model: Model,
    images: Split,
    device: Device,
    what: str,
    measure: Callable[[], Mapping[str, Any]],
) -> Mapping[str, Any]:
    """What is measured of a network on training images: the store keeps it."""
    recipe = EvaluationRecipe(Digests().program(model), what, str(images.digests), device.numerics)
    return recipe.measured(open_store(), measure, "how pixels become the input")


def _pixels(found: PixelsFile, train: InputTransform, test: InputTransform) -> Pixels:
    notes = tuple(filter(None, (found.why,)))
    source = found.why or "what is usual"
    return Pixels(found.applied(train), found.applied(test), source, notes, {PIXELS_FILE: found.to_bytes()})


def _outputs(network: ImportedNetwork) -> int | str | None:
    return (tensor_shape(network.model.graph.outputs[0]) or (None, None))[1]


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise WootzError(f"{flag} {text}: not a number, or numbers with commas between them") from error
    if flag == "--scale" and 0 in numbers:
        raise WootzError(f"{flag} {text}: pixels times 0 are all the same")
    return numbers
