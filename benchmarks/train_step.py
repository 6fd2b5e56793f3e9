"""How long a training step takes and what memory it needs, beside the same step in PyTorch on the same cores.

    python benchmarks/train_step.py [--json] [--quick] [--target native] [--threads 2] [--processes 5]
        [--repetitions 7] [NAME…]

resnet50_finetune   forward, backward and SGD with momentum: ResNet-50 at 224², 8 images
resnet20_finetune   the same for a ResNet-20 at 32², 32 images
resnet50_pretrain   ResNet-50 as frozen teacher and, for each of its 16 modules at rates 0.3, 0.5 and 0.7, a pruned
                    student: its loss, gradients and step; 8 images of 224²

PyTorch runs in both memory formats, contiguous and channels_last, its teacher under `no_grad` in eval mode, with one
optimizer for all students. Every system has a process of its own; they take turns, one repetition each, while the
others sleep. After so many repetitions all begin anew in other processes; what counts are medians of each process, and
of these the median. Memory is the most that a process held at once (VmHWM) above what it held before it built the
network. A process is slow where its median is more than SLOW times that of the fastest process of its system.

`--json` prints as its last line {"resnet50_finetune": our median over that of the faster PyTorch,
"resnet50_finetune_memory": our peak over that one's, …, "slow_state_share": of our processes, those that were slow}.
`--quick` takes small images and few students, to see whether everything runs. On a GPU, `--device cuda` measures steps
whose data set stays there (resident_steps.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any, Literal

import numpy as np

from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Module, Tensor, Variable
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.legalize import Target
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import TEACHER, TeacherStudent, student_loss
from wootz.runtime.session import Device, TrainingSession, fastest_target

Step = Callable[[], object]
SOLVER = Solver(base_lr=0.01, momentum=0.9, weight_decay=1e-4)
RATES = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class ResNet:
    """He et al. 2016: bottleneck blocks with a 7×7 stem (ImageNet), or basic blocks with a 3×3 stem (CIFAR)."""

    depths: tuple[int, ...]
    width: int
    bottleneck: bool
    classes: int

    @property
    def blocks(self) -> list[tuple[int, int, int]]:
        """Input channels, width and stride of each block."""
        found, channels = [], self.width
        for stage, depth in enumerate(self.depths):
            width = self.width * 2**stage
            for i in range(depth):
                found.append((channels, width, 2 if stage and not i else 1))
                channels = width * (4 if self.bottleneck else 1)
        return found


RESNET50 = ResNet((3, 4, 6, 3), 64, bottleneck=True, classes=1000)
RESNET20 = ResNet((3, 3, 3), 16, bottleneck=False, classes=10)


class Network:
    """A ResNet in the IR, with random weights and one module a block."""

    def __init__(self, resnet: ResNet, size: int):
        self.random = np.random.default_rng(0)
        data = Variable("data", np.float32, ["N", 3, size, size])
        self.graph = Graph(nodes=[], inputs=[data], outputs=[], opset=18)
        self.builder = Builder(self.graph)
        modules = []
        y = self.stem(data, resnet)
        for i, (channels, width, stride) in enumerate(resnet.blocks):
            entry = y
            y = self.block(f"block{i}", y, channels, width, stride, resnet.bottleneck)
            modules.append(Module(f"block{i}", entry.name, y.name))
        features = resnet.blocks[-1][1] * (4 if resnet.bottleneck else 1)
        flat = self.builder.op("Flatten", self.builder.op("GlobalAveragePool", y))
        weight = self.weight("fc.weight", (resnet.classes, features))
        bias = self.builder.constant(np.zeros(resnet.classes, np.float32), "fc.bias")
        logits = self.builder.op("Gemm", flat, weight, bias, hint="fc", transB=1)
        logits.dtype, logits.shape = np.float32, ["N", resnet.classes]
        self.graph.outputs = [logits]
        self.model = Model(self.graph, tuple(modules))

    def stem(self, data: Tensor, resnet: ResNet) -> Tensor:
        if not resnet.bottleneck:
            return self.convolution("conv1", data, 3, resnet.width, 3, 1, relu=True)
        y = self.convolution("conv1", data, 3, resnet.width, 7, 2, relu=True)
        return self.builder.op("MaxPool", y, hint="pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def block(self, name: str, x: Tensor, channels: int, width: int, stride: int, bottleneck: bool) -> Tensor:
        if bottleneck:
            y = self.convolution(f"{name}_a", x, channels, width, 1, 1, relu=True)
            y = self.convolution(f"{name}_b", y, width, width, 3, stride, relu=True)
            y, out = self.convolution(f"{name}_c", y, width, 4 * width, 1, 1), 4 * width
        else:
            y = self.convolution(f"{name}_a", x, channels, width, 3, stride, relu=True)
            y, out = self.convolution(f"{name}_b", y, width, width, 3, 1), width
        shortcut = x if stride == 1 and channels == out else self.convolution(f"{name}_s", x, channels, out, 1, stride)
        return self.builder.op("Relu", self.builder.op("Add", y, shortcut, hint=f"{name}_sum"), hint=name)

    def convolution(
        self, name: str, x: Tensor, channels: int, filters: int, kernel: int, stride: int, relu: bool = False
    ) -> Tensor:
        weight = self.weight(f"{name}.weight", (filters, channels, kernel, kernel))
        pads, strides = [kernel // 2] * 4, [stride] * 2
        y = self.builder.op("Conv", x, weight, hint=name, pads=pads, strides=strides)
        scale, bias, mean, variance = (
            self.builder.constant(np.full(filters, value, np.float32), f"{name}_bn.{kind}")
            for kind, value in (("scale", 1), ("bias", 0), ("mean", 0), ("variance", 1))
        )
        y = self.builder.op("BatchNormalization", y, scale, bias, mean, variance, hint=f"{name}_bn")
        return self.builder.op("Relu", y, hint=f"{name}_relu") if relu else y

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        return self.builder.constant(self.random.normal(0, deviation, shape).astype(np.float32), name)


def torch_network(resnet: ResNet) -> Any:
    """The same in PyTorch: a Sequential of stem, blocks and head."""
    from torch import nn

    if resnet.bottleneck:
        stem = [*torch_convolution(3, resnet.width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    else:
        stem = [*torch_convolution(3, resnet.width, 3, 1), nn.ReLU(inplace=True)]
    expansion = 4 if resnet.bottleneck else 1
    blocks = [torch_block(resnet.bottleneck, *shape) for shape in resnet.blocks]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(resnet.blocks[-1][1] * expansion, resnet.classes)]
    return nn.Sequential(nn.Sequential(*stem), *blocks, nn.Sequential(*head))


def torch_convolution(channels: int, filters: int, kernel: int, stride: int) -> list[Any]:
    from torch import nn

    return [nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(filters)]


def torch_block(bottleneck: bool, channels: int, width: int, stride: int, kept: int | None = None) -> Any:
    """A residual block; `kept` is the number of filters that pruning leaves in all but its last convolution."""
    from torch import nn

    kept = width if kept is None else kept
    if bottleneck:
        out = 4 * width
        layers = [*torch_convolution(channels, kept, 1, 1), nn.ReLU(inplace=True)]
        layers += [
            *torch_convolution(kept, kept, 3, stride),
            nn.ReLU(inplace=True),
            *torch_convolution(kept, out, 1, 1),
        ]
    else:
        out = width
        layers = [*torch_convolution(channels, kept, 3, stride), nn.ReLU(inplace=True)]
        layers += torch_convolution(kept, out, 3, 1)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main = nn.Sequential(*layers)
            projected = stride != 1 or channels != out
            self.shortcut = nn.Sequential(*torch_convolution(channels, out, 1, stride)) if projected else nn.Identity()

        def forward(self, x: Any) -> Any:
            return (self.main(x) + self.shortcut(x)).relu_()

    return Block()


def our_finetuning(resnet: ResNet, images: np.ndarray, labels: np.ndarray, target: Target, threads: int) -> Step:
    model = Network(resnet, images.shape[2]).model
    session = TrainingSession(build_training_graph(model, SOLVER, target=target), Device(threads=threads))
    return lambda: session.step(images, labels, SOLVER.base_lr)


def torch_finetuning(resnet: ResNet, images: np.ndarray, labels: np.ndarray, channels_last: bool) -> Step:
    import torch

    network = torch_network(resnet)
    x, targets = torch.tensor(images), torch.tensor(labels)
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), SOLVER.base_lr, SOLVER.momentum, weight_decay=SOLVER.weight_decay)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(x), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_pretraining(resnet: ResNet, images: np.ndarray, rates: Sequence[float], target: Target, threads: int) -> Step:
    model = Network(resnet, images.shape[2]).model
    blocks = [TuningBlock((Symbol(i, rate),)) for i in range(len(model.modules)) for rate in rates]
    joint = TeacherStudent().join(BlockPruner.of(model, "l1"), blocks)
    losses = tuple(student_loss(i) for i in range(len(blocks)))
    graph = build_training_graph(joint, SOLVER, loss=None, losses=losses, frozen=TEACHER, target=target)
    session = TrainingSession(graph, Device(threads=threads))
    return lambda: session.step(images, None, SOLVER.base_lr)


def torch_pretraining(resnet: ResNet, images: np.ndarray, rates: Sequence[float], channels_last: bool) -> Step:
    import torch

    teacher = torch_network(resnet).eval()
    students = [
        (i, torch_block(resnet.bottleneck, channels, width, stride, max(1, int(width * (1 - rate) + 1e-9))))
        for i, (channels, width, stride) in enumerate(resnet.blocks)
        for rate in rates
    ]
    x = torch.tensor(images)
    if channels_last:
        teacher, x = teacher.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        students = [(i, s.to(memory_format=torch.channels_last)) for i, s in students]
    parameters = [p for _, student in students for p in student.parameters()]
    optimizer = torch.optim.SGD(parameters, SOLVER.base_lr, SOLVER.momentum, weight_decay=SOLVER.weight_decay)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            taps = [teacher[0](x)]
            for block in teacher[1:-1]:
                taps.append(block(taps[-1]))
        total = 0.0
        for i, student in students:
            loss = torch.nn.functional.mse_loss(student(taps[i]), taps[i + 1])
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    return step


def batch(count: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.normal(size=(count, 3, size, size)).astype(np.float32), random.integers(0, classes, count)


SYSTEMS = ("wootz", "torch contiguous", "torch channels_last")
SLOW = 1.3
NAMES = ("resnet50_finetune", "resnet20_finetune", "resnet50_pretrain")


def medians(steps: dict[str, Step], repetitions: int) -> dict[str, float]:
    """The median seconds of each system, one repetition of all after the other, after one to warm up."""
    times: dict[str, list[float]] = {system: [] for system in steps}
    for step in steps.values():
        step()
    for _ in range(repetitions):
        for system, step in steps.items():
            start = time.perf_counter()
            step()
            times[system].append(time.perf_counter() - start)
    return {system: statistics.median(seconds) for system, seconds in times.items()}


def build(name: str, system: str, target: Target, threads: int, quick: bool) -> Step:
    """The step of one system."""
    resnet = RESNET20 if name.startswith("resnet20") else RESNET50
    size, count = (32, 32) if resnet is RESNET20 else (64, 2) if quick else (224, 8)
    images, labels = batch(count, size, resnet.classes)
    channels_last = system.endswith("channels_last")
    if name.endswith("finetune"):
        if system == "wootz":
            return our_finetuning(resnet, images, labels, target, threads)
        return torch_finetuning(resnet, images, labels, channels_last)
    rates = RATES[:1] if quick else RATES
    if system == "wootz":
        return our_pretraining(resnet, images, rates, target, threads)
    return torch_pretraining(resnet, images, rates, channels_last)


def serve(name: str, system: str, target: Target, threads: int, quick: bool) -> None:
    """Runs in a process of its own: a step for each line of standard input, answered by the seconds that it took and by
    the bytes that the process has needed at most since before the network was built."""
    if system != "wootz":
        import torch

        torch.set_num_threads(threads)
    before = memory("VmRSS")
    step = build(name, system, target, threads, quick)
    step()
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, memory("VmHWM") - before, flush=True)


def memory(kind: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes of memory that this process holds (VmRSS) or has held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


@dataclass(frozen=True)
class Measured:
    """What a system's processes took: the median seconds of a step of each, and the bytes that one needed at most."""

    medians: tuple[float, ...]
    bytes: int

    @property
    def seconds(self) -> float:
        return statistics.median(self.medians)

    @property
    def slow(self) -> int:
        """How many processes were slow."""
        return sum(seconds > SLOW * min(self.medians) for seconds in self.medians)


def measure(name: str, options: argparse.Namespace) -> dict[str, Measured]:
    """All systems in new processes, so many times."""
    rounds = [in_new_processes(name, options) for _ in range(options.processes)]
    return {
        system: Measured(
            tuple(statistics.median(seconds for seconds, _ in found[system]) for found in rounds),
            max(found[system][-1][1] for found in rounds),
        )
        for system in SYSTEMS
    }


def in_new_processes(name: str, options: argparse.Namespace) -> dict[str, list[tuple[float, int]]]:
    """Seconds and bytes of all systems, one repetition of each after the other."""
    command = [sys.executable, __file__, name, "--target", options.target, "--threads", str(options.threads)]
    command += ["--quick"] if options.quick else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    found: dict[str, list[tuple[float, int]]] = {system: [] for system in SYSTEMS}
    with ExitStack() as stack:
        workers = {
            system: stack.enter_context(
                subprocess.Popen([*command, "--system", system], env=environment, stdin=PIPE, stdout=PIPE, text=True)
            )
            for system in SYSTEMS
        }
        for _ in range(1 + options.repetitions):  # the first answers come when all are built
            for system, worker in workers.items():
                found[system].append(ask(worker, system))
        for worker in workers.values():
            worker.communicate()
    return {system: steps[1:] for system, steps in found.items()}


def ask(worker: subprocess.Popen[str], system: str) -> tuple[float, int]:
    """One step of a worker: seconds, and bytes so far."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(file=worker.stdin, flush=True)
    answer = worker.stdout.readline().split()
    if not answer:
        raise SystemExit(f"{system} ended with {worker.wait()}")
    return float(answer[0]), int(answer[1])


def in_turns(name: str, options: argparse.Namespace) -> dict[str, Measured]:
    """Ours and the PyTorch that is faster."""
    found = measure(name, options)
    best = min((system for system in SYSTEMS if system != "wootz"), key=lambda system: found[system].seconds)
    for system, m in found.items():
        medians = ", ".join(f"{seconds:.4f}" for seconds in m.medians)
        print(f"{name}, {system}: {m.seconds:.4f} s ({medians}; {m.slow} slow), {m.bytes / 1e6:.0f} MB", flush=True)
    return {"wootz": found["wootz"], "torch": found[best]}


def summary(found: dict[str, dict[str, Measured]]) -> dict[str, float]:
    """The ratios of all that was measured, by name, and the share of our processes that were slow."""
    ratios: dict[str, float] = {}
    for name, systems in found.items():
        ours, best = systems["wootz"], systems["torch"]
        ratios |= {name: ours.seconds / best.seconds, f"{name}_memory": ours.bytes / best.bytes}
    all_ours = [systems["wootz"] for systems in found.values()]
    ratios["slow_state_share"] = sum(m.slow for m in all_ours) / sum(len(m.medians) for m in all_ours)
    return ratios


def resident(name: str, options: argparse.Namespace) -> dict[str, float]:
    """The ratio of our time to that of the PyTorch that is faster."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    import torch
    from resident_steps import resident_medians

    torch.set_num_threads(options.threads)
    found = resident_medians(name, options)
    ratio = found["wootz"] / min(seconds for system, seconds in found.items() if system != "wootz")
    times = ", ".join(f"{system} {seconds:.4f} s" for system, seconds in found.items())
    print(f"{name}: {times}; ratio {ratio:.2f}", flush=True)
    return {name: ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], default=[], metavar="NAME")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--target", help="default: native where its operators were built, else onnx; on CUDA onnx-cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", type=int, default=5, help="of each system, one after the other")
    parser.add_argument("--repetitions", type=int, default=7, help="of each process")
    parser.add_argument("--system", choices=SYSTEMS, help=argparse.SUPPRESS)
    on_device = parser.add_argument_group("with the data set on the device (resident_steps.py): always so on CUDA")
    on_device.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    on_device.add_argument("--resident", action="store_true")
    on_device.add_argument("--batch-size", type=int, default=0)
    on_device.add_argument("--precision", choices=["float32", "float16"], default="float32")
    on_device.add_argument("--tf32", action="store_true")
    on_device.add_argument("--cuda-graphs", action="store_true", help="on our side")
    options = parser.parse_args()
    options.target = options.target or fastest_target(Device(options.device))
    if options.system:
        serve(options.names[0], options.system, options.target, options.threads, options.quick)
        return
    names = options.names or NAMES
    if options.resident or options.device == "cuda":
        ratios = {name: ratio for n in names for name, ratio in resident(n, options).items()}
    else:
        ratios = summary({name: in_turns(name, options) for name in names})
    if options.json:
        print(json.dumps({name: round(ratio, 4) for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
