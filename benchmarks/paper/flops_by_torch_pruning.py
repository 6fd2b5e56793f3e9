"""Beside `flops_budget.py`: the same network at the same share of its FLOPs, by Torch-Pruning and PyTorch.

    python benchmarks/paper/flops_by_torch_pruning.py NETWORK.onnx --run OUT/NAME/blocks-0.476 --kept 0.476 \
        [--threads 1]

--run is a run of `flops_budget.py` on NETWORK, whose data, pixels, solver and lesson are used, so that batches,
learning rates and tests are the same. Filters go by their l1 norms, over all layers, by the smallest ratio (in
hundredths) that leaves no more than the share of the multiply-accumulates. Shortcuts of option A, which Torch-Pruning
can't follow, are convolutions that do the same. Seconds are the processor's, from pruning to the last step.
"""

from __future__ import annotations

import argparse
import copy
import math
import pickle
import sys
import time
from pathlib import Path

import torch
import torch_pruning
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from torch_pruning_ladder import accuracy, fine_tune, interpreted, pruned

from wootz.runtime.job import Job


def within(network: nn.Module, image: torch.Tensor, kept: float) -> tuple[float, nn.Module]:
    """The smallest ratio, in hundredths, by which so much is left of the multiply-accumulates, and what it leaves."""
    most = kept * operations(network, image)
    for ratio in range(1, 100):
        smaller = pruned(network, image, ratio / 100)
        if operations(smaller, image) <= most:
            return ratio / 100, smaller
    sys.exit(f"no ratio leaves {kept:g} of the multiply-accumulates or less")


def operations(network: nn.Module, image: torch.Tensor) -> int:
    return int(torch_pruning.utils.count_ops_and_params(copy.deepcopy(network), image)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--kept", type=float, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    job: Job = pickle.loads((options.run / "job.pickle").read_bytes())
    network = interpreted(options.network)
    image = torch.zeros(1, *job.image_shape)
    begin = time.process_time()
    ratio, smaller = within(network, image, options.kept)
    before = accuracy(smaller, job.dataset.validation, job)
    share = operations(smaller, image) / operations(network, image)
    print(f"ratio {ratio}: {share:.3f} of the multiply-accumulates, {before:.4f} before fine-tuning", flush=True)
    after = fine_tune(smaller, network, job, enough=math.inf)
    seconds = time.process_time() - begin
    assert job.dataset.test is not None
    test = accuracy(smaller, job.dataset.test, job)
    print(f"{after:.4f} after it, {test:.4f} of the test images, {seconds:.0f} s")


if __name__ == "__main__":
    main()
