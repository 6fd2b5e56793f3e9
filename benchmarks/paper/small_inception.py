"""A small Inception for photographs of 32x32 pixels, trained: a general teacher for `table2.py`.

    python benchmarks/paper/small_inception.py --data DATA --out FOLDER [--classes 10] [--epochs 10] [--images 50000]

Seven modules of Inception-V2's kind (Ioffe and Szegedy 2015): 1x1, 3x3, twice 3x3, and pooling, each behind a 1x1
convolution, with BatchNormalization. Three have 96 channels of 16x16 pixels, four have 192 of 8x8: 37 million
multiply-accumulates an image. FOLDER/network.prototxt is the network, FOLDER/teacher/teacher.onnx what was trained, by
SGD at 0.1 with cosine decay in batches of 128, mirrored. An interrupted training goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from explorer import Explorer, full_network
from lite0_flowers import ONE_STEP

from wootz.runtime.run_directory import TEACHER_FILE

BATCH = 128
TEACHER = """type: "SGD" base_lr: 0.1 lr_policy: "cosine" warmup_iter: 200 max_iter: {steps} momentum: 0.9
weight_decay: 0.0005 batch_size: {batch} test_interval: {interval} average_loss: 100
"""
INPUT = """name: "small-inception"
layer { name: "data" type: "Input" top: "data"
  transform_param { scale: 0.017 mean_value: 114 mean_value: 123 mean_value: 125 mirror: true }
  input_param { shape { dim: 1 dim: 3 dim: 32 dim: 32 } } }"""


def network(classes: int) -> Iterator[str]:
    """The lines of its prototxt."""
    yield INPUT
    yield from convolution("conv1", "data", 32, 3)
    yield pooling("pool1", "conv1", "MAX", 2, 2)
    last = "pool1"
    for name in ("3a", "3b", "3c"):
        yield from module(name, last, 24)
        last = name
    yield pooling("pool3", last, "MAX", 2, 2)
    last = "pool3"
    for name in ("4a", "4b", "4c", "4d"):
        yield from module(name, last, 48)
        last = name
    yield pooling("pool4", last, "AVE", 8, 1)
    yield (
        'layer { name: "scores" type: "InnerProduct" bottom: "pool4" top: "scores" '
        f'inner_product_param {{ num_output: {classes} weight_filler {{ type: "xavier" }} }} }}'
    )


def module(name: str, bottom: str, width: int) -> Iterator[str]:
    """Of 4 * width channels."""
    half, more = width // 2, width * 3 // 4
    yield from convolution(f"{name}/1x1", bottom, width, 1, name)
    yield from convolution(f"{name}/3x3_reduce", bottom, width, 1, name)
    yield from convolution(f"{name}/3x3", f"{name}/3x3_reduce", 2 * more, 3, name)
    yield from convolution(f"{name}/double3x3_reduce", bottom, half, 1, name)
    yield from convolution(f"{name}/double3x3_1", f"{name}/double3x3_reduce", more, 3, name)
    yield from convolution(f"{name}/double3x3_2", f"{name}/double3x3_1", more, 3, name)
    yield pooling(f"{name}/pool", bottom, "AVE", 3, 1, name)
    yield from convolution(f"{name}/pool_proj", f"{name}/pool", more, 1, name)
    branches = " ".join(f'bottom: "{name}/{branch}"' for branch in ("1x1", "3x3", "double3x3_2", "pool_proj"))
    yield f'layer {{ name: "{name}" type: "Concat" {branches} top: "{name}" {_of(name)}}}'


def convolution(name: str, bottom: str, filters: int, size: int, module: str = "") -> Iterator[str]:
    """With BatchNormalization and ReLU."""
    yield (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {_of(module)}'
        f"convolution_param {{ num_output: {filters} kernel_size: {size} pad: {size // 2} bias_term: false "
        'weight_filler { type: "msra" } } }'
    )
    in_place = f'bottom: "{name}" top: "{name}" {_of(module)}'
    yield f'layer {{ name: "{name}/bn" type: "BatchNorm" {in_place}}}'
    yield f'layer {{ name: "{name}/scale" type: "Scale" {in_place}scale_param {{ bias_term: true }} }}'
    yield f'layer {{ name: "{name}/relu" type: "ReLU" {in_place}}}'


def pooling(name: str, bottom: str, kind: str, size: int, stride: int, module: str = "") -> str:
    pad = size // 2 if stride == 1 and module else 0
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" {_of(module)}'
        f"pooling_param {{ pool: {kind} kernel_size: {size} stride: {stride} pad: {pad} }} }}"
    )


def _of(module: str) -> str:
    return f'module: "{module}" ' if module else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=50_000, help="of the training split")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    net, teacher, one_step = (options.out / f"{name}.prototxt" for name in ("network", "teacher", "one_step"))
    net.write_text("\n".join(network(options.classes)) + "\n")
    interval = options.images // BATCH
    teacher.write_text(TEACHER.format(steps=options.epochs * interval, batch=BATCH, interval=interval))
    one_step.write_text(ONE_STEP)
    solvers = ("--teacher-solver", teacher, "--solver", one_step, "--pretrain-solver", one_step)
    run = options.out / "teacher"
    Explorer(net, options.data, options.threads, tuple(map(str, solvers))).enumerate(run, 1, "max Accuracy", 0)
    full = full_network(run)
    print(f"{run / TEACHER_FILE}: {full.quality:.4f} of the validation, {full.test_quality:.4f} of the test images")


if __name__ == "__main__":
    main()
