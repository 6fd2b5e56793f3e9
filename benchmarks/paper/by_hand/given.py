"""What a user of PyTorch has: the network as a module."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from torch import nn
from torch_pruning_ladder import Interpreted

from wootz.passes.ir.files import load
from wootz.passes.pipeline import parse_pipeline, run_pipeline


def network(file: Path) -> nn.Module:
    return Interpreted(run_pipeline(load(file), parse_pipeline("fold-constants")).model).eval()
