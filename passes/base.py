"""What a pass is.

A pass is a frozen dataclass: its fields are its options, its docstring is its specification. It takes a valid
model and gives a new valid model; the one it was given stays as it was.

    @dataclass(frozen=True)
    class FoldBatchNorm(Pass):
        '''Folds BatchNormalization in inference mode into the convolution before it.'''

        name = "fold-batchnorm"
        keep_names: bool = option(True, "keep the name of the folded output")

        def apply(self, model: Model) -> PassResult: ...
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model


def option(default: Any, help: str) -> Any:
    """A field of a pass that is an option on the command line, with its one-line help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class PassResult:
    """The model after the pass, whether it differs from the one before, and what was counted on the way."""

    model: Model
    modified: bool
    statistics: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass(ABC):
    """Base of all passes. `name` is kebab-case and equals the module's name with `_` for `-`."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, model: Model) -> PassResult:
        """Transforms `model`, which is left as it is. Raises PassError for what the pass refuses."""

    def refuse(self, reason: str, where: str | None = None) -> PassError:
        """The error to raise when this pass can't do what was asked."""
        return PassError(self.name, reason, where)

    @classmethod
    def summary(cls) -> str:
        """The first line of the pass's docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def options(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The options, in order of declaration; help text is in `field.metadata['help']`."""
        return tuple(f for f in dataclasses.fields(cls) if f.init)
