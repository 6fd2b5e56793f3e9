"""Pruning well-known CNNs by half, beside Torch-Pruning 1.6.1 and onnxsim 0.8.1.

    python benchmarks/prune.py [--models resnet50,…] [--configurations 500] [--json]

Needs PyTorch; a tool that is not installed is left out. All start from the same weights. Times, the smallest of
`--repeat` runs:

- Wootz: channel analysis, ranking and materialisation of the ONNX model in memory; serialising it stands beside.
- Torch-Pruning: dependency graph, pruning (l1, uniform), and the export to ONNX, without which there is no network.
- onnxsim: its structured pruning of the ONNX model, which needs BatchNormalization folded.

Correct is a network whose outputs equal those of the original with the removed channels masked (max|a-b|/max|b| at
most 1e-5). What a tool removed is read off the vectors it left: all biases and scales are different numbers.

The time of a further configuration is that of ResNet-50 with random rates of 0, 30, 50 and 70 % a module.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch

from wootz.passes.analysis.cost import macs, parameters
from wootz.passes.ir.model import Model, constants
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.materializer import Materializer
from wootz.passes.pruning.planner import Planner

ROOT = Path(__file__).parents[1]
RATE = 0.5
NOTHING_REMOVED = "nothing removed"


@dataclass(frozen=True)
class Outcome:
    """What a tool made of a network: None where it failed, `failure` then says how."""

    seconds: float | None
    model: Model | None = None
    failure: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="comma-separated; default all")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--configurations", type=int, default=500)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    networks = load_module(ROOT / "tests" / "fixtures" / "export_models.py")
    oracles = load_module(ROOT / "tests" / "passes" / "oracles.py")
    names = options.models.split(",") if options.models else list(networks.MODELS)
    tools = {"wootz": prune_with_wootz}
    if find_spec("torch_pruning"):
        tools["torch-pruning"] = prune_with_torch_pruning
    if find_spec("onnxsim"):
        tools["onnxsim"] = prune_with_onnxsim

    print(f"| model | unpruned | {' | '.join(tools)} |\n|{' --- |' * (len(tools) + 2)}")
    correct = dict.fromkeys(tools, 0)
    seconds: dict[tuple[str, str], float] = {}
    for name in names:
        build, size = networks.MODELS[name]
        network = randomized(build())
        image = torch.randn(2, 3, size, size)
        model = Model.from_proto(networks.export_torchscript(network, image, {0: "N"}))
        cells = [costs(model)]
        failures: list[str] = []
        for tool, prune in tools.items():
            outcome = best_of(options.repeat, partial(prune, network, image, model, networks))
            if outcome.model is None or outcome.seconds is None:
                cells.append("fails")
                failures.append(f"{name}, {tool}: {outcome.failure}")
                continue
            seconds[name, tool] = outcome.seconds
            fault = check(model, outcome.model, oracles)
            correct[tool] += not fault
            found = {"": costs(outcome.model), NOTHING_REMOVED: NOTHING_REMOVED}.get(fault, "wrong")
            cells.append(f"{outcome.seconds:.3f} s, {found}")
            failures += [f"{name}, {tool}: {fault}"] if fault else []
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        for failure in failures:
            print(failure, file=sys.stderr)
    result: dict[str, Any] = {"models_total": len(names), "models_correct": correct["wootz"]}
    for tool in tools:
        print(f"{tool}: {correct[tool]} of {len(names)} correct")
    if ("resnet50", "torch-pruning") in seconds:
        ratio = seconds["resnet50", "wootz"] / seconds["resnet50", "torch-pruning"]
        result["resnet50_over_torch_pruning"] = round(ratio, 4)
        print(f"ResNet-50, Wootz over Torch-Pruning: {ratio:.3f}")
    if options.configurations:
        result |= further_configurations(networks, options.configurations)
    if options.json:
        print(json.dumps(result))


def load_module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    """Seeded weights as after training: no two filters, biases, scales or statistics alike."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_(0, 0.1)
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                layer.bias.data.normal_(0, 0.1)
    return network.eval()


def best_of(repeat: int, run: Callable[[], Outcome]) -> Outcome:
    outcomes = []
    for _ in range(repeat):
        outcomes.append(run())
        if outcomes[-1].seconds is None:
            return outcomes[-1]
    return min(outcomes, key=lambda o: o.seconds or 0.0)


def prune_with_wootz(network: torch.nn.Module, image: torch.Tensor, model: Model, networks: ModuleType) -> Outcome:
    start = time.perf_counter()
    planner = Planner.of(model)
    plan = planner.plan(dict.fromkeys(range(len(planner.cells)), RATE))
    pruned = Materializer.of(model, planner.analysis).materialize(plan)
    return Outcome(time.perf_counter() - start, pruned)


def prune_with_torch_pruning(
    network: torch.nn.Module, image: torch.Tensor, model: Model, networks: ModuleType
) -> Outcome:
    import copy

    import torch_pruning

    copied = copy.deepcopy(network)
    heads = [m for m in copied.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1000]
    heads += list(getattr(copied, "heads", [])) + ([copied.head] if hasattr(copied, "head") else [])
    start = time.perf_counter()
    try:
        pruner = torch_pruning.pruner.MetaPruner(
            copied,
            image[:1],
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=RATE,
            ignored_layers=heads,
        )
        pruner.step()
        proto = networks.export_torchscript(copied.eval(), image, {0: "N"})
    except Exception as error:  # whatever another tool does is its result
        return Outcome(None, failure=one_line(error))
    return Outcome(time.perf_counter() - start, Model.from_proto(proto))


def prune_with_onnxsim(network: torch.nn.Module, image: torch.Tensor, model: Model, networks: ModuleType) -> Outcome:
    import onnxsim

    folded = run_pipeline(model, parse_pipeline("fold-constants,fold-batchnorm")).model.to_proto()
    start = time.perf_counter()
    try:
        proto = onnxsim.apply_structured_pruning(folded, sparsity=RATE, importance_norm="l1")
        seconds = time.perf_counter() - start
        return Outcome(seconds, Model.from_proto(onnx.shape_inference.infer_shapes(proto)))
    except Exception as error:  # whatever another tool does is its result
        return Outcome(None, failure=one_line(error))


def check(model: Model, pruned: Model, oracles: ModuleType) -> str:
    """What is wrong with a pruned network; empty for a correct one."""
    reference = model
    if not any(node.op == "BatchNormalization" for node in pruned.graph.nodes):
        reference = run_pipeline(model, parse_pipeline("fold-constants,fold-batchnorm")).model
    try:
        plan = plan_from_vectors(reference, pruned)
        feeds = oracles.random_feeds(model)
        pairs = zip(oracles.run(pruned, feeds), oracles.run(oracles.zero_masked(reference, plan), feeds), strict=True)
        difference = max(oracles.difference(a, b) for a, b in pairs)
    except Exception as error:
        return one_line(error)
    if difference > oracles.TOLERANCE:
        return f"outputs differ by {difference:.1g}"
    return NOTHING_REMOVED if macs(pruned) >= macs(reference) else ""


def plan_from_vectors(model: Model, pruned: Model) -> Any:
    """What was removed: an element of a bias or scale that is gone took its channel with it."""
    planner = Planner.of(model)
    before, after = constants(model.graph), constants(pruned.graph)
    gone = np.zeros(len(planner.analysis.channel_of) + 1, bool)
    for use in planner.analysis.parameters:
        if len(use.maps) == 1 and use.maps[0].ndim == 1 and use.constant in after:
            is_gone = ~np.isin(before[use.constant], after[use.constant])
            gone[use.maps[0][is_gone]] = True
    gone[-1] = False
    kept = np.ones(len(planner.analysis.channel_of), bool)
    kept[planner.analysis.channel_of[np.flatnonzero(gone)]] = False
    return planner.plan_of_kept(kept)


def further_configurations(networks: ModuleType, count: int) -> dict[str, float]:
    """Many configurations of one ResNet-50 in memory, and what it takes to serialise one."""
    build, size = networks.MODELS["resnet50"]
    image = torch.randn(2, 3, size, size)
    proto = networks.export_torchscript(randomized(build()), image, {0: "N"})
    model = run_pipeline(Model.from_proto(proto), parse_pipeline("fold-constants")).model
    pruner = BlockPruner.of(model)
    rng = random.Random(0)
    rates = [{m.name: rng.choice([0.0, 0.3, 0.5, 0.7]) for m in pruner.modules} for _ in range(count + 1)]
    pruner.materialize(pruner.plan(rates[0]))
    start = time.perf_counter()
    for configuration in rates[1:]:
        last = pruner.materialize(pruner.plan(configuration))
    each = (time.perf_counter() - start) / count
    start = time.perf_counter()
    last.to_proto().SerializeToString()
    serialising = time.perf_counter() - start
    print(f"ResNet-50, {count} further configurations: {1000 * each:.2f} ms each")
    print(f"serialising one: {1000 * serialising:.0f} ms")
    return {"ms_per_further_configuration": round(1000 * each, 3), "ms_serialising": round(1000 * serialising, 1)}


def costs(model: Model) -> str:
    """Multiply-accumulates and parameters."""
    return f"{macs(model) / 1e9:.3f} G, {parameters(model) / 1e6:.2f} M"


def one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:100]


if __name__ == "__main__":
    main()
