"""The smallest network within a drop of accuracy, by Torch-Pruning and PyTorch.

    python benchmarks/paper/by_hand/with_torch_pruning.py NETWORK --data FOLDER --out SMALLEST.onnx --drop 0.01 …

Filters go by their ℓ1 norms, over all layers; what remains is fine-tuned, by labels and by the full network's scores.
"""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice

import torch
import torch_pruning
from bisection import largest
from given import network
from photographs import load
from settings import settings
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


def pruned(full: nn.Module, ratio: float, image: torch.Tensor) -> nn.Module:
    smaller = copy.deepcopy(full)
    torch_pruning.pruner.BasePruner(
        smaller,
        image,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=ratio,
        global_pruning=True,
        ignored_layers=[layer for layer in smaller.modules() if isinstance(layer, nn.Linear)],
    ).step()
    return smaller


def batches(count: int, size: int) -> Iterator[torch.Tensor]:
    while True:
        yield from torch.randperm(count)[: count // size * size].split(size)


def fine_tune(
    smaller: nn.Module, full: nn.Module, images: torch.Tensor, labels: torch.Tensor, options: Namespace
) -> Iterator[None]:
    """Comes back after each so many steps of training."""
    optimizer = torch.optim.SGD(
        smaller.parameters(), options.learning_rate, options.momentum, weight_decay=options.weight_decay
    )
    warm_up = LinearLR(optimizer, 1 / options.warm_up, total_iters=options.warm_up)
    decay = CosineAnnealingLR(optimizer, options.steps - options.warm_up)
    schedule = SequentialLR(optimizer, [warm_up, decay], [options.warm_up])
    for step, chosen in enumerate(islice(batches(len(images), options.batch_size), options.steps)):
        if step % options.test_interval == 0:
            yield
        smaller.train()
        flipped = options.mirror * (torch.rand(len(chosen), 1, 1, 1) < 0.5)
        batch = torch.where(flipped, images[chosen].flip(3), images[chosen])
        with torch.no_grad():
            wanted = functional.log_softmax(full(batch) / options.temperature, 1)
        scores = smaller(batch)
        found = functional.log_softmax(scores / options.temperature, 1)
        distillation = options.temperature**2 * functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        loss = (1 - options.distill) * functional.cross_entropy(scores, labels[chosen]) + options.distill * distillation
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    yield


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    return torch.cat([model(part).argmax(1) for part in images.split(100)]).eq(labels).double().mean().item()


def main() -> None:
    parser = settings(__doc__)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--warm-up", type=int, required=True)
    parser.add_argument("--momentum", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--distill", type=float, required=True)
    parser.add_argument("--temperature", type=float, required=True)
    parser.add_argument("--test-interval", type=int, required=True)
    parser.add_argument("--mirror", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    (images, labels), validation = (tuple(map(torch.from_numpy, load(split, options))) for split in ("train", "val"))
    full, image = network(options.network), images[:1]
    least = accuracy(full, *validation) - options.drop

    def is_enough(ratio: float) -> bool:
        smaller = pruned(full, ratio, image)
        for _ in fine_tune(smaller, full, images, labels, options):
            reached = accuracy(smaller, *validation)
            print(f"{ratio:.4f}: {reached:.4f}, {sum(weight.numel() for weight in smaller.parameters()):,}", flush=True)
            if reached >= least:
                any_number = {"images": {0: "N"}}
                torch.onnx.export(
                    smaller, (image,), options.out, input_names=["images"], dynamic_axes=any_number, dynamo=False
                )
                return True
        return False

    largest(is_enough, options.trainings)


if __name__ == "__main__":
    main()
