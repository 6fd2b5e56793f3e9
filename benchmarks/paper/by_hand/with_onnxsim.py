"""The smallest network within a drop of accuracy, by onnxsim: structured pruning, and tuning of blocks.

    python benchmarks/paper/by_hand/with_onnxsim.py NETWORK --data FOLDER --out SMALLEST.onnx --drop 0.01 …

The tuning of onnxsim 0.8.1 takes the shapes inside of a block from the full network, and so refuses one whose filters
are gone. What shall go is zeros at first, stays so while blocks are tuned, and goes then: it has the smallest norm.
All blocks together get --steps steps. Each is shown what the network before it makes of the images, again for each
block, so that these are some of the images.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import onnxsim
from bisection import largest
from onnx.numpy_helper import from_array, to_array
from photographs import load
from settings import settings

IMAGES = 512
"""That blocks are tuned on."""


def zeroed(full: onnx.ModelProto, cut: onnx.ModelProto) -> onnx.ModelProto:
    """The full network, with zeros for the filters that `cut` hasn't: it hasn't their biases either."""
    masked = copy.deepcopy(full)
    weights = {tensor.name: tensor for tensor in masked.graph.initializer}
    kept = {tensor.name: to_array(tensor) for tensor in cut.graph.initializer}
    for node in masked.graph.node:
        if node.op_type == "Conv":
            weight, bias = (weights[name] for name in node.input[1:])
            goes = ~np.isin(to_array(bias), kept[bias.name])
            for tensor in (weight, bias):
                values = to_array(tensor).copy()
                values[goes] = 0
                tensor.CopyFrom(from_array(values, tensor.name))
    return masked


def accuracy(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    parts = np.array_split(images, len(images) // 100)
    scores = [session.run(None, {model.graph.input[0].name: part})[0] for part in parts]
    return float(np.mean(np.concatenate(scores).argmax(1) == labels))


def main() -> None:
    parser = settings(__doc__)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args()
    (images, _), validation = load("train", options), load("val", options)
    chosen = np.random.default_rng(options.seed).permutation(len(images))[:IMAGES]
    full, _ = onnxsim.simplify(onnx.load(options.network))
    blocks = onnxsim.discover_qat_blocks(full, full, fake_quant=False)
    least = accuracy(full, *validation) - options.drop

    def is_enough(sparsity: float) -> bool:
        cut = onnxsim.apply_structured_pruning(full, sparsity, global_sparsity=True)
        tuned, _ = onnxsim.apply_block_finetune_all_blocks(
            full,
            zeroed(full, cut),
            blocks,
            calibration_data=[{full.graph.input[0].name: images[chosen]}],
            num_iterations=options.steps // len(blocks),
            learning_rate=options.learning_rate,
            batch_size=options.batch_size,
            batch_seed=options.seed,
            preserve_sparsity=True,
        )
        smaller = onnxsim.apply_structured_pruning(tuned, sparsity, global_sparsity=True)
        reached, size = accuracy(smaller, *validation), sum(np.prod(w.dims) for w in smaller.graph.initializer)
        print(f"{sparsity:.4f}: {accuracy(cut, *validation):.4f}, tuned {reached:.4f}, {size:,}", flush=True)
        if reached >= least:
            onnx.save(smaller, options.out)
        return reached >= least

    largest(is_enough, options.trainings)


if __name__ == "__main__":
    main()
