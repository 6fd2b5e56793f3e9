"""Where each pass lives: kebab-case name -> module. Modules are imported when a pass is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module

from wootz.passes.base import Pass
from wootz.passes.errors import WootzError

PASSES: dict[str, str] = {
    "apply-optimizer": "wootz.passes.training.apply_optimizer:ApplyOptimizer",
    "attach-loss": "wootz.passes.training.attach_loss:AttachLoss",
    "build-gradients": "wootz.passes.training.build_gradients:BuildGradients",
    "legalize": "wootz.passes.training.legalize:Legalize",
    "training-mode": "wootz.passes.training.training_mode:TrainingMode",
}


def pass_names() -> list[str]:
    return sorted(PASSES)


def pass_class(name: str) -> type[Pass]:
    """The class of the pass called `name`. Raises WootzError, naming the closest one."""
    if name not in PASSES:
        close = difflib.get_close_matches(name, PASSES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "--list-passes shows them all"
        raise WootzError(f"no pass named {name!r}: {hint}")
    module, _, class_name = PASSES[name].partition(":")
    found: type[Pass] = getattr(import_module(module), class_name)
    return found
