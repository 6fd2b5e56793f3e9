"""What a run can finish with: pipelines of passes over the best network, each with a file of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from wootz.passes.base import Pass
from wootz.passes.errors import WootzError
from wootz.passes.pipeline import parse_pipeline, print_pipeline
from wootz.passes.transforms.embed_normalization import EmbedNormalization
from wootz.passes.transforms.int8 import Int8
from wootz.passes.transforms.to_float16 import ToFloat16
from wootz.runtime.delivery.quantization import quantiser

FORMATS = (Int8, ToFloat16)
"""Passes that give a network other numbers to compute with: one of them at most, and the last of a pipeline."""


@dataclass(frozen=True)
class Pipeline:
    """Passes over the best network, and the name of the file that they make."""

    passes: tuple[Pass, ...]
    file: str

    @property
    def text(self) -> str:
        return print_pipeline(self.passes)


def read_pipelines(texts: Sequence[str]) -> tuple[Pipeline, ...]:
    """The pipelines that `--finish` gives. Raises WootzError for one that can't be, whatever the network is.

    A file is called `best.PASS.onnx` after the last pass, where that name is taken after all passes of the pipeline,
    and where that is taken, too, it has a number.
    """
    pipelines: list[Pipeline] = []
    for text in texts:
        passes = parse_pipeline(text)
        _check(text, passes)
        if any(passes == other.passes for other in pipelines):
            raise WootzError(f"--finish {text}: it is given twice")
        pipelines.append(Pipeline(passes, _file_name(passes, [p.file for p in pipelines])))
    return tuple(pipelines)


def _check(text: str, passes: Sequence[Pass]) -> None:
    if not passes:
        raise WootzError(f"--finish {text!r}: there is no pass in it")
    for position, pass_ in enumerate(passes):
        if not (pass_.preserves_outputs or isinstance(pass_, EmbedNormalization | Int8 | ToFloat16)):
            raise WootzError(
                f"--finish {text}: {pass_.name} changes what the network computes; a run finishes with to-float16, "
                f"int8, embed-normalization and passes that keep the outputs as they are"
            )
        if isinstance(pass_, FORMATS) and position < len(passes) - 1:
            raise WootzError(f"--finish {text}: {pass_.name} has to be the last pass")
        if isinstance(pass_, ToFloat16) and pass_.half_io:
            raise WootzError(f"--finish {text}: the network keeps the types of its input and output: leave half-io out")
        if isinstance(pass_, Int8):
            if pass_.data is not None:
                raise WootzError(f"--finish {text}: int8 looks at the run's training images: leave data out")
            quantiser()


def _file_name(passes: Sequence[Pass], taken: Collection[str]) -> str:
    return next(name for name in _file_names([p.name.removeprefix("to-") for p in passes]) if name not in taken)


def _file_names(passes: Sequence[str]) -> Iterator[str]:
    yield f"best.{passes[-1]}.onnx"
    whole = ".".join(passes)
    yield f"best.{whole}.onnx"
    yield from (f"best.{whole}-{number}.onnx" for number in count(2))
