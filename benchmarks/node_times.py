"""Where the time of a training step goes: milliseconds of each operator, by ONNX Runtime's profile.

    python benchmarks/node_times.py resnet50|resnet20|NETWORK.onnx [--images 8] [--size 224] [--threads 1] [--steps 6] \
        [--target native] [--nodes 20]

The step is forward, backward and SGD with momentum of a classifier; `resnet50` and `resnet20` are those of
train_step.py. A node takes the smallest of its times in all steps: what else runs on the machine disturbs it least.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from machine import machine
from train_step import RESNET20, RESNET50, SOLVER, Network

from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.session import Device, TrainingSession

SESSION_OPTIONS = onnxruntime.SessionOptions


@dataclass(frozen=True)
class NodeTime:
    name: str
    operator: str
    milliseconds: float


def network(name: str, size: int) -> Model:
    known = {"resnet50": RESNET50, "resnet20": RESNET20}
    return Network(known[name], size).model if name in known else load(name)


def node_times(model: Model, options: argparse.Namespace, folder: Path) -> list[NodeTime]:
    """Those of the nodes as the session runs them; profiles lie in the folder."""

    def with_profile() -> onnxruntime.SessionOptions:
        made = SESSION_OPTIONS()
        made.enable_profiling, made.profile_file_prefix = True, str(folder / "profile")
        return made

    onnxruntime.SessionOptions = with_profile
    graph = build_training_graph(model, SOLVER, target=options.target)
    session = TrainingSession(graph, Device(threads=options.threads))
    random = np.random.default_rng(0)
    _, channels, *_ = model.graph.inputs[0].shape
    classes = model.graph.outputs[0].shape[-1]
    images = random.normal(size=(options.images, channels, options.size, options.size)).astype(np.float32)
    labels = random.integers(0, classes, options.images)
    for _ in range(options.steps):
        session.step(images, labels, SOLVER.base_lr)
    del session  # writes the profile
    smallest: dict[str, NodeTime] = {}
    for file in folder.glob("profile*"):
        for event in json.loads(file.read_text()):
            name = event["name"].removesuffix("_kernel_time")
            if event.get("cat") != "Node" or name == event["name"]:
                continue
            found = NodeTime(name, event["args"]["op_name"], event["dur"] / 1000)
            smallest[name] = min(found, smallest.get(name, found), key=lambda node: node.milliseconds)
    return list(smallest.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--target", default="native")
    parser.add_argument("--nodes", type=int, default=20, help="that are shown, the longest first")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        found = node_times(network(options.network, options.size), options, Path(folder))
    of_operator: defaultdict[str, list[float]] = defaultdict(list)
    for node in found:
        of_operator[node.operator].append(node.milliseconds)
    print(f"{sum(node.milliseconds for node in found):.2f} ms, {len(found)} nodes")
    for operator, times in sorted(of_operator.items(), key=lambda item: -sum(item[1])):
        print(f"{sum(times):10.2f} ms {len(times):5} {operator}")
    print()
    for node in sorted(found, key=lambda node: -node.milliseconds)[: options.nodes]:
        print(f"{node.milliseconds:10.2f} ms {node.operator:24} {node.name}")


if __name__ == "__main__":
    main()
