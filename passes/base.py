"""What a pass is.

A pass is a frozen dataclass: its fields are its options, its docstring is its specification. It takes a valid
model and gives a new valid model; the one it was given stays as it was.

    @dataclass(frozen=True)
    class FoldBatchNorm(Pass):
        '''Folds BatchNormalization in inference mode into the convolution before it.'''

        name = "fold-batchnorm"
        preserves_outputs = True
        keep_names: bool = option(True, "keep the name of the folded output")

        def apply(self, model: Model) -> PassResult: ...
"""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wootz.passes.errors import PassError
from wootz.passes.ir.model import Model
from wootz.passes.plan.pruning import PruningPlan

Evaluator = Callable[[Model, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs a model on feeds (by input name) and gives all its outputs by name."""


def option(default: Any, help: str) -> Any:
    """A field of a pass that is an option on the command line, with its one-line help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class PassResult:
    """The model after the pass, whether it differs from the one before, and what was counted on the way.

    Passes that prune say what in `plan`, and how long the pruned network was checked; passes that only look say what
    they saw in `report`, a text. `notes` are lines for the user on what the pass has decided by itself.
    """

    model: Model
    modified: bool
    statistics: Mapping[str, int | float] = field(default_factory=dict)
    plan: PruningPlan | None = None
    report: str = ""
    notes: tuple[str, ...] = ()
    check_seconds: float = 0.0


@dataclass(frozen=True)
class Pass(ABC):
    """Base of all passes. `name` is kebab-case and equals the module's name with `_` for `-`.

    `preserves_outputs` promises that the network computes the same as before, within rounding. `requires` says what a
    pass can't run without, beside a network: an option, or what another pass has to do first. A pass that has to
    execute graphs has a field `evaluator: Evaluator | None`, which is no option: whoever runs the pass gives one.
    """

    name: ClassVar[str]
    preserves_outputs: ClassVar[bool] = False
    requires: ClassVar[str] = ""

    @abstractmethod
    def apply(self, model: Model) -> PassResult:
        """Transforms `model`, which is left as it is. Raises PassError for what the pass refuses."""

    def refuse(self, reason: str, where: str | None = None) -> PassError:
        """The error to raise when this pass can't do what was asked."""
        return PassError(self.name, reason, where)

    @classmethod
    def summary(cls) -> str:
        """The first line of the pass's docstring."""
        return (inspect.getdoc(cls) or "").splitlines()[0]

    @classmethod
    def options(cls) -> tuple[dataclasses.Field[Any], ...]:
        """The options, in order of declaration; help text is in `field.metadata['help']`."""
        return tuple(f for f in dataclasses.fields(cls) if "help" in f.metadata)
