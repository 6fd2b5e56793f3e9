"""What number formats cost and bring: networks in 8-bit integers of several kinds, and in float16, beside float32.

    python benchmarks/number_formats.py NETWORK.onnx --data FOLDER --normalize MEAN:STD [--threads 2] [--images 300]

Each is made as `wootz run --finish` makes it, from 128 training images. All take turns for one image at a time. Where
the network tells as many classes apart as the data have, `right` is its accuracy on test images, else how often its
largest score is that of the network in float32; `difference` is that of scores, over the largest one.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.plan.pixel_conventions import read_convention
from wootz.passes.plan.transform import InputTransform
from wootz.passes.transforms.int8 import Quantization
from wootz.runtime.batches import ordered_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.data.loading import load_dataset
from wootz.runtime.delivery.finish import CALIBRATION_IMAGES
from wootz.runtime.delivery.quantization import quantize
from wootz.runtime.latency import side_by_side
from wootz.runtime.session import Device, FileSession
from wootz.tools.models import open_trainable

KINDS = {
    "int8 (default)": Quantization(),
    "int8, activations=int8": Quantization(activations="int8"),
    "int8, weights=uint8": Quantization(weights="uint8"),
    "int8, calibration=percentile": Quantization(calibration="percentile"),
    "int8, calibration=entropy": Quantization(calibration="entropy"),
}
BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--normalize", required=True)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = open_trainable(str(options.network)).model
    model = run_pipeline(model, parse_pipeline("eliminate-dead,fold-constants,fold-batchnorm,eliminate-dead")).model
    name, shape = model.graph.inputs[0].name, tuple(model.graph.inputs[0].shape[1:])
    transform = read_convention(options.normalize).applied(InputTransform(channel_order="RGB"))
    data = load_dataset(options.data, shape)
    sample = {name: _fed(data.train, transform, CALIBRATION_IMAGES)[0]}
    images, labels = _fed(data.test or data.validation, transform, options.images)
    networks = {"float32": model} | {kind: quantize(model, sample, asked) for kind, asked in KINDS.items()}
    networks["float16"] = run_pipeline(model, parse_pipeline("to-float16")).model
    device = Device(threads=options.threads)
    contents = {kind: network.to_proto().SerializeToString() for kind, network in networks.items()}
    sessions = {kind: FileSession(content, device) for kind, content in contents.items()}
    scores = {kind: _scores(session, images) for kind, session in sessions.items()}
    expected = scores["float32"]
    told = labels if expected.shape[1] == len(data.classes) else expected.argmax(1)
    latencies = side_by_side([partial(session.run, images[:1]) for session in sessions.values()])
    print("| network | right | difference | kB | ms (quartiles) |\n| --- | --- | --- | --- | --- |")
    for (kind, found), latency in zip(scores.items(), latencies, strict=True):
        right = 100 * np.mean(found.argmax(1) == told)
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        time = f"{latency.median_ms:.3g} ({latency.low_ms:.3g} to {latency.high_ms:.3g})"
        print(f"| {kind} | {right:.1f} % | {difference:.2g} | {len(contents[kind]) / 1000:,.0f} | {time} |")


def _fed(split: Split, transform: InputTransform, count: int) -> tuple[np.ndarray, np.ndarray]:
    """So many images from all over a split as the network takes them, and their labels."""
    count = min(count, len(split))
    chosen = split.part(np.arange(count) * len(split) // count)
    (batch,) = ordered_batches(chosen, transform, count)
    return np.asarray(batch.data), chosen.classes


def _scores(session: FileSession, images: np.ndarray) -> np.ndarray:
    return np.concatenate([session.run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])


if __name__ == "__main__":
    main()
