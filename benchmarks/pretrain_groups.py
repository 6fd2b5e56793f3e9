"""What it brings to pre-train all variants of all modules in one graph, against the paper's groups.

    python benchmarks/pretrain_groups.py [--json] [--size 224] [--batch 8] [--steps 5] [--threads 2] [--memory BYTES]

ResNet-50, its 16 modules at rates 0.3, 0.5 and 0.7: 48 students. The paper's partition puts blocks that overlap in
different groups, each with a teacher pass of its own; the joint way takes as few groups as fit into memory. A step is
one batch through all groups. Each way runs in a process of its own; the processes take turns, step by step, and the
median step counts. Memory is that of the largest group, since groups are trained one after the other: a fresh process
reads its training graph from a file and takes three steps, and what it held before it opened the session is subtracted
from its peak. Building the graph, the network included, is measured in the same way in the process that writes the
file. Measuring memory takes Linux. `--json` prints as its last line

    {"speedup": the paper's seconds a step over the joint ones, "teacher_passes_per_sample": of the joint way}

A share of the step is all that can be gained: the students' own work is the same both ways.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.groups import format_bytes, group_blocks
from wootz.passes.ir.files import load, save
from wootz.passes.ir.model import Model
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.joint_graph import joint_training_graph, partition_by_memory
from wootz.passes.training.memory import training_memory
from wootz.runtime.session import Device, TrainingSession

RESNET50 = Path(__file__).parents[1] / "examples" / "imagenet" / "resnet50.prototxt"
RATES = (0.3, 0.5, 0.7)
WAYS = ("joint", "paper")


@dataclass(frozen=True)
class Setting:
    way: str
    size: int
    batch: int
    threads: int
    memory: int | None


@dataclass(frozen=True)
class Memory:
    """Peaks in bytes, beyond what the processes held before: of training the largest group, and of building it."""

    training: int
    building: int


@dataclass(frozen=True)
class Built:
    """The groups of one way, and the one that takes most memory, with the bytes estimated for it."""

    groups: int
    largest: int
    estimate: int


def work(setting: Setting, orders: Connection) -> None:
    """Builds the sessions; then each order received is a step to time."""
    graphs = build(setting)
    estimates = [training_memory(graph, setting.batch).total for graph in graphs]
    sessions = [TrainingSession(graph, Device(threads=setting.threads)) for graph in graphs]
    orders.send(Built(len(graphs), int(np.argmax(estimates)), max(estimates)))
    images = np.random.default_rng(1).normal(size=(setting.batch, 3, setting.size, setting.size)).astype(np.float32)
    while True:
        orders.recv()
        start = time.perf_counter()
        for session in sessions:
            session.step(images, None, 0.01)
        orders.send(time.perf_counter() - start)


def write_group(setting: Setting, number: int, file: Path) -> int:
    """Builds the training graph of one group and writes it. Gives the peak of building, libraries not counted."""
    before = forget_peak()
    (graph,) = build(setting, number)
    peak = peak_memory() - before
    save(graph, file)
    return peak


def train_group(setting: Setting, file: Path) -> int:
    """Trains a group as it stands in a file. Gives the peak of that, without what the process held before."""
    graph = load(file)
    before = forget_peak()
    session = TrainingSession(graph, Device(threads=setting.threads))
    for _ in range(3):
        session.step(np.zeros((setting.batch, 3, setting.size, setting.size), np.float32), None, 0.01)
    return peak_memory() - before


def forget_peak() -> int:
    """Makes `peak_memory` begin anew. Gives the bytes that the process holds now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_memory() -> int:
    """The most bytes that this process has held (Linux: VmHWM)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def build(setting: Setting, only: int | None = None) -> list[Model]:
    """The training graphs of all groups, or of one."""
    model = import_caffe(RESNET50).model
    model.graph.inputs[0].shape = ["N", 3, setting.size, setting.size]
    pruner = BlockPruner.of(replace(model, modules=find_modules(model)[0]))
    blocks = [TuningBlock((Symbol(i, rate),)) for i in range(len(pruner.modules)) for rate in RATES]
    solver = Solver(momentum=0.9, batch_size=setting.batch)
    by_memory = setting.way == "joint"
    groups = partition_by_memory(pruner, blocks, solver, setting.memory) if by_memory else group_blocks(blocks)
    chosen = groups if only is None else groups[only : only + 1]
    return [joint_training_graph(pruner, group, solver) for group in chosen]


def measure(settings: Sequence[Setting], steps: int) -> dict[str, tuple[float, Built, Memory]]:
    """Of each way: the median seconds of a step, what was built, and the memory of its largest group."""
    context = multiprocessing.get_context("spawn")
    pipes = {setting.way: context.Pipe() for setting in settings}
    processes = [context.Process(target=work, args=(s, pipes[s.way][1]), daemon=True) for s in settings]
    built = {}
    for setting, process in zip(settings, processes, strict=True):
        process.start()
        built[setting.way] = pipes[setting.way][0].recv()
    seconds: dict[str, list[float]] = {setting.way: [] for setting in settings}
    for step in range(steps + 1):
        for way, (ours, _) in pipes.items():
            ours.send(step)
            taken = ours.recv()
            if step > 0:  # the first one warms up
                seconds[way].append(taken)
    for process in processes:
        process.terminate()
    memory = {setting.way: measure_memory(setting, built[setting.way].largest) for setting in settings}
    return {way: (statistics.median(seconds[way]), built[way], memory[way]) for way in pipes}


def measure_memory(setting: Setting, group: int) -> Memory:
    """Building and training, each in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "group.onnx"
        with context.Pool(1) as pool:
            building = pool.apply(write_group, (setting, group, file))
        with context.Pool(1) as pool:
            return Memory(pool.apply(train_group, (setting, file)), building)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the two figures as JSON on the last line")
    parser.add_argument("--size", type=int, default=224, help="pixels along a side")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=int, help="bytes for a group of the joint way (default: no bound)")
    options = parser.parse_args(arguments)
    settings = [Setting(way, options.size, options.batch, options.threads, options.memory) for way in WAYS]
    found = measure(settings, options.steps)
    print(f"ResNet-50, {options.batch} images of {options.size}², rates {RATES}, {options.threads} threads")
    for way, (seconds, built, memory) in found.items():
        print(
            f"{way:5}: {built.groups} teacher passes a sample, {seconds:.3f} s a step; training the largest group "
            f"takes {format_bytes(memory.training)}, by the estimate {format_bytes(built.estimate)} "
            f"({built.estimate / memory.training:.2f} of it); building it {format_bytes(memory.building)}"
        )
    speedup = found["paper"][0] / found["joint"][0]
    print(f"speedup {speedup:.2f}")
    if options.json:
        print(json.dumps({"speedup": round(speedup, 3), "teacher_passes_per_sample": found["joint"][1].groups}))


if __name__ == "__main__":
    main(sys.argv[1:])
