"""The training steps of train_step.py with a data set that stays on the device, as one trains on a GPU.

On either side a step chooses its batch from uint8 images on the device, mirrors half of it and normalises it there;
nothing is copied from or to the host within a measurement, and losses are read at its end. PyTorch: cuDNN's benchmark
mode, the memory format that is faster, on CUDA also `torch.compile`, and with float16 autocast and GradScaler. TF32 is
on or off on both sides.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from train_step import (
    RATES,
    RESNET20,
    RESNET50,
    SOLVER,
    Network,
    ResNet,
    Step,
    medians,
    torch_block,
    torch_network,
)

from wootz.passes.ir.model import Model
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.batches import extents
from wootz.runtime.data.dataset import Split
from wootz.runtime.resident import ResidentSteps, with_batches
from wootz.runtime.schedule import training_schedule
from wootz.runtime.session import Device, TrainingSession

IMAGES = 256
MEAN, SCALE = 118.0, 1 / 60
ENDLESS = 1 << 40


@dataclass(frozen=True)
class Setting:
    """What is measured: `steps` steps in one measurement."""

    device: Device
    target: Target
    precision: Precision
    batch_size: int
    steps: int
    split: Split


def resident_medians(name: str, options: Namespace) -> dict[str, float]:
    """The median seconds of a step of each system, with the options of train_step.py."""
    device = Device(options.device, options.threads, tf32=options.tf32, cuda_graphs=options.cuda_graphs)
    steps, count = systems(name, device, options.target, options.precision, options.batch_size, options.quick)
    return {system: seconds / count for system, seconds in medians(steps, options.repetitions).items()}


def systems(
    name: str, device: Device, target: Target, precision: Precision, batch_size: int, quick: bool
) -> tuple[dict[str, Step], int]:
    """The steps to compare, by system, and how many of them one call makes."""
    resnet = RESNET20 if name.startswith("resnet20") else RESNET50
    size = 32 if resnet is RESNET20 else 64 if quick else 224
    random = np.random.default_rng(0)
    split = Split(
        random.integers(0, 256, (IMAGES, 3, size, size), np.uint8), random.integers(0, resnet.classes, IMAGES)
    )
    default_batch = 32 if resnet is RESNET20 else 2 if quick else 8
    setting = Setting(device, target, precision, batch_size or default_batch, 2 if quick else 20, split)
    rates = () if name.endswith("finetune") else RATES[:1] if quick else RATES
    found = {
        "wootz": our_steps(resnet, rates, setting),
        "torch contiguous": torch_steps(resnet, rates, setting, channels_last=False),
        "torch channels_last": torch_steps(resnet, rates, setting, channels_last=True),
    }
    if device.kind == "cuda":
        found["torch compiled"] = torch_steps(resnet, rates, setting, channels_last=True, compiled=True)
    return found, setting.steps


def our_steps(resnet: ResNet, rates: tuple[float, ...], setting: Setting) -> Step:
    """Fine-tuning, or with `rates` pre-training of all modules at these."""
    height, _ = extents(setting.split)
    model = Network(resnet, height).model
    solver = replace(SOLVER, batch_size=setting.batch_size)
    graph = _pretraining(model, rates, setting) if rates else _finetuning(model, setting)
    transform = InputTransform(mean=(MEAN,), scale=(SCALE,), mirror=True, channel_order="RGB")
    program = with_batches(graph, setting.split, transform, solver)
    schedule = training_schedule(IMAGES, extents(setting.split), transform, solver.batch_size, ENDLESS, 0)
    steps = ResidentSteps(program, TrainingSession(program, setting.device), setting.split, schedule, solver)

    def run() -> None:
        done = 0
        while done < setting.steps:
            done += len(steps.advance(done, setting.steps))

    return run


def _finetuning(model: Model, setting: Setting) -> Model:
    return build_training_graph(model, SOLVER, target=setting.target, precision=setting.precision)


def _pretraining(model: Model, rates: tuple[float, ...], setting: Setting) -> Model:
    blocks = [TuningBlock((Symbol(i, rate),)) for i in range(len(model.modules)) for rate in rates]
    return joint_training_graph(BlockPruner.of(model, "l1"), blocks, SOLVER, setting.target, setting.precision)


def torch_steps(
    resnet: ResNet, rates: tuple[float, ...], setting: Setting, channels_last: bool, compiled: bool = False
) -> Step:
    """The same by hand in PyTorch: a frozen teacher under `no_grad` in eval mode, one optimizer for all students."""
    import torch

    kind = setting.device.kind
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = setting.device.tf32
    form = torch.channels_last if channels_last else torch.contiguous_format
    network = torch_network(resnet).to(kind, memory_format=form)
    if rates:
        network.eval()
    parameters = list(network.parameters())
    shapes = [(i, shape, rate) for i, shape in enumerate(resnet.blocks) for rate in rates]
    kept = [max(1, int(width * (1 - rate) + 1e-9)) for _, (_, width, _), rate in shapes]
    students = [
        (i, torch_block(resnet.bottleneck, *shape, count).to(kind, memory_format=form))
        for (i, shape, _), count in zip(shapes, kept, strict=True)
    ]
    trained = [p for _, student in students for p in student.parameters()] if rates else parameters
    optimizer = torch.optim.SGD(trained, SOLVER.base_lr, SOLVER.momentum, weight_decay=SOLVER.weight_decay)
    half = setting.precision == "float16"
    scaler = torch.amp.GradScaler(kind, enabled=half)
    batches = _torch_batches(setting, form)
    if compiled:
        network = network if rates else torch.compile(network)
        students = [(i, torch.compile(student)) for i, student in students]

    def losses(x: Any, labels: Any) -> Iterator[Any]:
        if not rates:
            yield torch.nn.functional.cross_entropy(network(x), labels)
            return
        with torch.no_grad():
            taps = [network[0](x)]
            for block in network[1:-1]:
                taps.append(block(taps[-1]))
        for i, student in students:
            yield torch.nn.functional.mse_loss(student(taps[i]), taps[i + 1])

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        x, labels = next(batches)
        total = torch.zeros((), device=kind)
        with torch.autocast(kind, torch.float16, enabled=half):
            for loss in losses(x, labels):
                scaler.scale(loss).backward()
                total += loss.detach()
        scaler.step(optimizer)
        scaler.update()
        return total

    def run() -> float:
        curve = [step() for _ in range(setting.steps)]
        return float(torch.stack(curve).sum())  # waits for the device

    return run


def _torch_batches(setting: Setting, form: Any) -> Iterator[tuple[Any, Any]]:
    import torch

    kind, count = setting.device.kind, setting.batch_size
    images, labels = torch.tensor(setting.split.images).to(kind), torch.tensor(setting.split.labels).to(kind)
    while True:
        chosen = torch.randint(IMAGES, (count,), device=kind)
        flips = torch.rand(count, device=kind) < 0.5
        taken = images[chosen]
        taken = torch.where(flips[:, None, None, None], taken.flip(3), taken)
        yield ((taken.float() - MEAN) * SCALE).contiguous(memory_format=form), labels[chosen]
