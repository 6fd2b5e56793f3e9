"""Torch-Pruning's global l1 at several ratios, each network fine-tuned in PyTorch as `wootz run` fine-tunes its own.

    python benchmarks/torch_pruning_ladder.py NETWORK.onnx --job RUN/job.pickle --bound 0.89 [--threads 1] --out FILE

The job of a run of Wootz gives data, input transform, solver and seed, so that batches and learning rates are the same.
The smallest network is first; the first one that has an accuracy of `--bound` ends it. Written is a list of
{"seconds": since the beginning, "model_size", "flops", "accuracy", "ratio"}, with "test_accuracy" in the last.

The network is interpreted node by node, with its layers as PyTorch modules. A shortcut that takes every second pixel
and pads channels (option A of He et al. 2016), which Torch-Pruning 1.6.1 can't follow, becomes the 1×1 convolution that
does the same.
"""

from __future__ import annotations

import argparse
import copy
import json
import pickle
import time
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from torch import nn
from torch.nn import functional

from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Model, Node, constants
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.runtime.batches import ordered_batches, training_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.job import Job

RATIOS = (0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
BATCH = 100


class Interpreted(nn.Module):
    """A CNN of an ONNX file; its layers are modules of PyTorch, in the order of the nodes."""

    def __init__(self, model: Model):
        super().__init__()
        annotate_symbolic_shapes(model.graph)
        self.values = constants(model.graph)
        self.input, self.output = model.graph.inputs[0].name, model.graph.outputs[0].name
        self.steps = [node for node in model.graph.nodes if node.op != "Slice"]
        self.sliced = {n.outputs[0].name: n.inputs[0].name for n in model.graph.nodes if n.op == "Slice"}
        self.layers = nn.ModuleList(self._layer(node) for node in self.steps)

    def _layer(self, node: Node) -> nn.Module:
        weights = [torch.tensor(self.values[t.name]) for t in node.inputs[1:] if t.name in self.values]
        match node.op:
            case "Conv":
                return _convolution(node, *weights)
            case "BatchNormalization":
                return _normalization(weights, node.attrs.get("epsilon", 1e-5))
            case "Gemm":
                linear = nn.Linear(weights[0].shape[1], weights[0].shape[0])
                linear.weight.data, linear.bias.data = weights
                return linear
            case "Pad":
                return _shortcut(weights[0].tolist(), int(node.inputs[0].shape[1]))
            case "Relu":
                return nn.ReLU()
            case "MaxPool":
                return nn.MaxPool2d(node.attrs["kernel_shape"], node.attrs["strides"], ceil_mode=_is_ceiled(node))
            case "AveragePool" | "GlobalAveragePool" | "ReduceMean":
                return nn.AdaptiveAvgPool2d(1)
            case "Add" | "Sum" | "Reshape" | "Flatten" | "Softmax":
                return nn.Identity()
        raise NotImplementedError(node.op)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        known = {self.input: images}
        for node, layer in zip(self.steps, self.layers, strict=True):
            names = [self._source(t.name) for t in node.inputs]
            tensors = [known[name] for name in names if name in known]
            match node.op:
                case "Add" | "Sum":
                    result = sum(tensors[1:], start=tensors[0])
                case "Reshape" | "Flatten":
                    result = tensors[0].flatten(1)
                case _:
                    result = layer(tensors[0])
            known[node.outputs[0].name] = result
        return known[self.output]

    def _source(self, name: str) -> str:
        while name in self.sliced:
            name = self.sliced[name]
        return name


def interpreted(file: str) -> Interpreted:
    """The network of an ONNX file, in inference mode."""
    return Interpreted(run_pipeline(load(file), parse_pipeline("fold-constants")).model).eval()


def _is_ceiled(node: Node) -> bool:
    return bool(node.attrs.get("ceil_mode", 0))


def _convolution(node: Node, weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Conv2d:
    attrs = node.attrs
    pads, group = attrs.get("pads", [0] * 4), attrs.get("group", 1)
    rows, columns = attrs.get("strides", [1, 1])
    filters, channels, height, width = weight.shape
    layer = nn.Conv2d(channels * group, filters, (height, width), (rows, columns), (pads[0], pads[1]), groups=group)
    layer.weight.data = weight
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer


def _normalization(weights: list[torch.Tensor], epsilon: float) -> nn.BatchNorm2d:
    scale, bias, mean, variance = weights
    layer = nn.BatchNorm2d(len(scale), eps=epsilon)
    layer.weight.data, layer.bias.data = scale, bias
    layer.running_mean, layer.running_var = mean, variance
    return layer


def _shortcut(pads: list[int], channels: int) -> nn.Conv2d:
    """Every second pixel, with so many channels of zeros before and behind: a convolution."""
    before, behind = pads[1], pads[5]
    layer = nn.Conv2d(channels, before + channels + behind, 1, stride=2, bias=False)
    layer.weight.data.zero_()
    layer.weight.data[range(before, before + channels), range(channels)] = 1.0
    return layer


def pruned(network: nn.Module, image: torch.Tensor, ratio: float) -> nn.Module:
    copied = copy.deepcopy(network)
    torch_pruning.pruner.BasePruner(
        copied,
        image,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        global_pruning=True,
        ignored_layers=[layer for layer in copied.modules() if isinstance(layer, nn.Linear)],
    ).step()
    return copied


def fine_tune(network: nn.Module, teacher: nn.Module, job: Job, enough: float) -> float:
    """By the steps, batches, learning rates and lesson of the job, as far as they matter to SGD and classifiers; ends
    with an accuracy of `enough`. Gives the best one of the tests before, on the way and at the end, whose weights the
    network then has."""
    solver = job.solver
    best, kept = accuracy(network, job.dataset.validation, job), copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(
        network.parameters(), lr=1.0, momentum=solver.momentum, weight_decay=solver.weight_decay
    )
    seed, train = solver.random_seed or 0, job.dataset.train
    batches = training_batches(train, job.train_transform, solver.batch_size, solver.max_iter, seed)
    for step, batch in enumerate(batches):
        if best >= enough:
            break
        network.train()
        for group in optimizer.param_groups:
            group["lr"] = solver.learning_rate(step)
        optimizer.zero_grad()
        images, labels = torch.from_numpy(batch.data), torch.from_numpy(batch.labels)
        scores, share = network(images), job.lesson.distill
        loss = (1 - share) * functional.cross_entropy(scores, labels)
        if share:
            loss = loss + share * _distillation(scores, teacher, images, job.lesson.temperature)
        loss.backward()
        optimizer.step()
        is_tested = step + 1 == solver.max_iter or (solver.test_interval and (step + 1) % solver.test_interval == 0)
        if is_tested:
            found = accuracy(network, job.dataset.validation, job)
            print(f"after {step + 1} steps: {found:.4f}", flush=True)
            if found >= best:
                best, kept = found, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return best


def _distillation(scores: torch.Tensor, teacher: nn.Module, images: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² KL(teacher || network) of scores that are divided by T (Hinton et al. 2015), the mean over the batch."""
    with torch.no_grad():
        wanted = functional.log_softmax(teacher(images) / temperature, 1)
    found = functional.log_softmax(scores / temperature, 1)
    return temperature**2 * functional.kl_div(found, wanted, log_target=True, reduction="batchmean")


@torch.no_grad()
def accuracy(network: nn.Module, split: Split, job: Job) -> float:
    network.eval()
    batches = ordered_batches(split, job.test_transform, BATCH)
    right = (network(torch.from_numpy(b.data)).argmax(1).numpy() == b.labels for b in batches)
    return float(np.mean(np.concatenate(list(right))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--bound", type=float, required=True)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    begin = time.perf_counter()
    job: Job = pickle.loads(options.job.read_bytes())
    network = interpreted(options.model)
    image = torch.zeros(1, *job.image_shape)
    found = []
    for ratio in RATIOS:
        smaller = pruned(network, image, ratio)
        flops, size = torch_pruning.utils.count_ops_and_params(smaller, image)
        reached = fine_tune(smaller, network, job, options.bound)
        seconds = time.perf_counter() - begin
        row = {"seconds": seconds, "model_size": int(size), "flops": 2 * flops, "accuracy": reached, "ratio": ratio}
        print(row, flush=True)
        found.append(row)
        if reached >= options.bound:
            assert job.dataset.test is not None
            found[-1]["test_accuracy"] = accuracy(smaller, job.dataset.test, job)
            break
    options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
