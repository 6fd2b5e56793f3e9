"""What one command makes of networks as people have them: `wootz run MODEL --data PHOTOGRAPHS`, and nothing else said.

    python benchmarks/one_command.py --shared FOLDER [--effort quick] [--only PART] [--json]

Four pairs of a network and photographs, from the folder that `WOOTZ_SHARED` or --shared names; what isn't there is
skipped with a message. `--effort` is the one thing that is said beside (default: quick, minutes a pair on two cores).

Each result is judged here without Wootz: best.onnx is run by plain ONNX Runtime on image files, which are opened by
Pillow and fed as best.json says. A pair is ok where the accuracy that the run promises on the validation photographs
is found again, the network is smaller, and what it loses on photographs that the run used for nothing but its report
is a point at most (the objective's bound), give or take two standard errors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from machine import machine
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps

BOUND = 0.01
"""Of the objective that a run chooses: accuracy that may be lost."""
SEEN_AGAIN = 0.005
"""Difference to the promised accuracy that is none: how a photograph is resized and rounded may decide a few."""


@dataclass(frozen=True)
class Pair:
    """A network and photographs."""

    what: str
    model: Path
    data: Path


class NotThereError(Exception):
    """What a pair needs is missing; says what."""


@dataclass(frozen=True)
class Sources:
    """Where networks and photographs come from, and where they are laid out."""

    shared: Path
    folder: Path

    def file(self, *parts: str) -> Path:
        file = self.shared.joinpath(*parts)
        if not file.exists():
            raise NotThereError(f"{file} is not there")
        return file

    def photographs(self, name: str, counts: Mapping[str, tuple[str, int, int | None]]) -> Path:
        """A folder SPLIT/CLASS/*.jpg with photographs [first, last) a class of a split of the data set."""
        archive = self.file("data", f"{name}.tar.gz")
        whole, laid_out = self.folder / "data" / name, self.folder / "data" / f"{name}_splits"
        if not whole.exists():
            with tarfile.open(archive) as tar:
                tar.extractall(whole.parent, filter="data")
        for split, (source, first, last) in counts.items():
            for folder in sorted(path for path in (whole / source).iterdir() if path.is_dir()):
                target = laid_out / split / folder.name
                target.mkdir(parents=True, exist_ok=True)
                for file in sorted(folder.iterdir())[first:last]:
                    if not (target / file.name).exists():
                        os.link(file, target / file.name)
        return laid_out

    def wootz(self, *arguments: object, out: Path) -> subprocess.CompletedProcess[bytes]:
        """Runs it, with the store of the benchmark, and what it prints beside `out`."""
        command = [Path(sys.executable).parent / "wootz", *arguments, "--out", out, "--store", self.folder / "store"]
        environment = {**os.environ, "WOOTZ_CACHE": str(self.folder / "cache"), "COLUMNS": "80"}
        with out.with_suffix(".log").open("w") as file:
            return subprocess.run(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, env=environment)

    def cifar10(self) -> Path:
        """3,000 photographs for training, and of those that the networks have never seen 2,000 and 3,000."""
        return self.photographs(
            "cifar10_32", {"train": ("train", 0, 300), "val": ("test", 0, 200), "test": ("test", 200, 500)}
        )

    def flowers(self) -> Path:
        return self.photographs(
            "flowers5_64", {"train": ("train", 0, 380), "val": ("train", 380, None), "test": ("test", 0, None)}
        )


def pytorch_export(sources: Sources) -> Pair:
    model = sources.file("pretrained", "resnet20_cifar10.onnx")
    return Pair("ResNet-20 as PyTorch exports it, for these ten classes", model, sources.cifar10())


def other_classes(sources: Sources) -> Pair:
    model = sources.file("pretrained", "resnet20_cifar10.onnx")
    what = "the same network of CIFAR-10's ten classes, for five kinds of flowers"
    return Pair(what, model, sources.flowers())


def keras_export(sources: Sources) -> Pair:
    """The network is trained here, from scratch, on the photographs for training alone."""
    data, out = sources.flowers(), sources.folder / "flowers_network"
    single, model = sources.folder / "single.json", sources.folder / "keras_like.onnx"
    single.write_text(json.dumps([[0.7] * 8]))
    print("\nThe network of examples/flowers is trained first, for the next pair.", flush=True)
    example = Path(__file__).parents[1] / "examples" / "flowers"
    given = ("--data", data, "--subspace", single, "--objective", "max Accuracy", "--reference", "given")
    if sources.wootz("run", example, *given, out=out).returncode:
        raise NotThereError(f"the network could not be trained: {out.with_suffix('.log')}")
    fed = json.loads((out / "best.json").read_text())["input"]
    onnx.save(in_rows(onnx.load(out / "teacher.onnx"), fed["mean"], fed["scale"]), model)
    what = "a network for these five classes as tf2onnx writes Keras': pixels in rows, normalised inside, softmax last"
    return Pair(what, model, data)


def caffe_network(sources: Sources) -> Pair:
    folder = ("zoo", "weights", "cifar10_quick_everpeace_V1")
    sources.file(*folder, "net.caffemodel")
    what = "Caffe's cifar10_quick, a prototxt with its caffemodel beside it, of 2014"
    return Pair(what, sources.file(*folder, "net.prototxt"), sources.cifar10())


PAIRS: Mapping[str, Callable[[Sources], Pair]] = {
    "pytorch": pytorch_export,
    "new head": other_classes,
    "keras": keras_export,
    "caffe": caffe_network,
}


def in_rows(model: onnx.ModelProto, mean: Sequence[float], scale: Sequence[float]) -> onnx.ModelProto:
    """A network of (pixel - mean) * scale in BGR, [N, 3, H, W], as one of RGB pixels in [N, H, W, 3]."""
    graph = model.graph
    (image,), (scores,) = graph.input, graph.output
    _, _, height, width = (d.dim_value for d in image.type.tensor_type.shape.dim)
    classes = scores.type.tensor_type.shape.dim[1].dim_value
    (first_weight,) = {node.input[1] for node in graph.node if image.name in node.input}
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights[first_weight] = np.ascontiguousarray(weights[first_weight][:, ::-1])
    for name, values in (("mean", mean), ("scale", scale)):
        weights[f"normalization/{name}"] = np.array(values[::-1], np.float32).reshape(1, 1, 1, -1)
    first = [
        helper.make_node("Sub", ["input_1", "normalization/mean"], ["centred"], "model/normalization/sub"),
        helper.make_node("Mul", ["centred", "normalization/scale"], ["normalization"], "model/normalization/mul"),
        helper.make_node("Transpose", ["normalization"], [image.name], "model/conv1__6", perm=[0, 3, 1, 2]),
    ]
    last = helper.make_node("Softmax", [scores.name], ["predictions"], "model/predictions/Softmax", axis=1)
    made = helper.make_graph(
        [*first, *graph.node, last],
        "tf2onnx",
        [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["unk__1", height, width, 3])],
        [helper.make_tensor_value_info("predictions", TensorProto.FLOAT, ["unk__2", classes])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(made, producer_name="tf2onnx", opset_imports=model.opset_import, ir_version=8)


# Judging, with nothing of Wootz.


def as_input(file: Path, fed: Mapping[str, Any]) -> np.ndarray:
    """The image file as `input` in best.json says: [channels, height, width] or [height, width, channels]."""
    height, width, crop = fed["height"], fed["width"], fed["crop_size"]
    photograph = Image.open(file).convert("L" if fed["channel_order"] == "grey" else "RGB")
    bilinear = Image.Resampling.BILINEAR
    if fed["resize"] == "crop":
        side = fed["resize_to"]
        photograph = ImageOps.fit(photograph, (side, side) if side else (width, height), bilinear)
    elif fed["resize"] == "pad":
        photograph = ImageOps.pad(photograph, (width, height), bilinear, color=(128, 128, 128))
    else:
        photograph = photograph.resize((width, height), bilinear)
    if crop:
        left, top = (photograph.width - crop) // 2, (photograph.height - crop) // 2
        photograph = photograph.crop((left, top, left + crop, top + crop))
    pixels = np.asarray(photograph, np.float32).reshape(photograph.height, photograph.width, -1)
    if fed["channel_order"] == "BGR":
        pixels = pixels[:, :, ::-1]
    pixels = (pixels - np.float32(fed["mean"])) * np.float32(fed["scale"])
    return pixels if fed["layout"] == "NHWC" else pixels.transpose(2, 0, 1)


def answers(network: Path, described: Mapping[str, Any], data: Path) -> np.ndarray:
    """Whether the network's answer to each photograph of a split is the class of its folder."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    fed, classes = described["input"], described["classes"]
    right: list[bool] = []
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        files = sorted(folder.iterdir())
        for first in range(0, len(files), 100):
            batch = np.stack([as_input(file, fed) for file in files[first : first + 100]])
            (scores,) = session.run([described["outputs"][0]["name"]], {fed["name"]: batch})
            right.extend(classes[index] == folder.name for index in scores.argmax(1))
    return np.array(right)


@dataclass(frozen=True)
class Verdict:
    """Accuracies are of the files, as they were measured here: `full` and `best` on held-out photographs."""

    pair: str
    seconds: float
    smaller: float
    promised: float
    seen_again: float
    full: float
    best: float
    accuracy_drop: float
    standard_error: float
    photographs: int

    @property
    def is_ok(self) -> bool:
        return (
            abs(self.promised - self.seen_again) <= SEEN_AGAIN
            and self.smaller < 1
            and self.accuracy_drop - 2 * self.standard_error <= BOUND
        )


def judged(name: str, pair: Pair, out: Path, seconds: float) -> Verdict:
    described = json.loads((out / "best.json").read_text())
    best, full = (out / described[which]["file"] for which in ("best", "full"))
    full_right, best_right = (answers(file, described, pair.data / "test").astype(int) for file in (full, best))
    lost = full_right - best_right
    return Verdict(
        pair=name,
        seconds=round(seconds),
        smaller=round(described["best"]["parameters"] / described["full"]["parameters"], 4),
        promised=described["best"]["validation_quality"],
        seen_again=round(float(answers(best, described, pair.data / "val").mean()), 4),
        full=round(float(full_right.mean()), 4),
        best=round(float(best_right.mean()), 4),
        accuracy_drop=round(float(lost.mean()), 4),
        standard_error=round(float(lost.std() / np.sqrt(len(lost))), 4),
        photographs=len(lost),
    )


def run(name: str, pair: Pair, sources: Sources, effort: str) -> Verdict | str:
    """Runs the pair and judges what it finds; the reason where there is nothing to judge."""
    out = sources.folder / name.replace(" ", "_")
    given = ("run", pair.model, "--data", pair.data)
    print(f"\n{name}: {pair.what}\n$ wootz {' '.join(map(str, given))} --effort {effort}", flush=True)
    begin = time.monotonic()
    done = sources.wootz(*given, "--effort", effort, "--fresh", out=out)
    seconds = time.monotonic() - begin
    if done.returncode:
        return f"failed after {seconds:.0f} s: {out.with_suffix('.log').read_text().strip().splitlines()[-1]}"
    return judged(name, pair, out, seconds)


def table(verdicts: Sequence[Verdict]) -> str:
    head = "| pair | time | parameters | promised, found again | full | best | lost |\n|" + " --- |" * 7
    rows = [
        f"| {v.pair} | {v.seconds:.0f} s | {100 * v.smaller:.0f} % "
        f"| {100 * v.promised:.1f}, {100 * v.seen_again:.1f} % | {100 * v.full:.1f} % | {100 * v.best:.1f} % "
        f"| {100 * v.accuracy_drop:.1f} ± {100 * v.standard_error:.1f} points |"
        for v in verdicts
    ]
    return "\n".join([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("WOOTZ_SHARED", "../shared")))
    parser.add_argument("--out", type=Path, default=Path("build/one_command"))
    parser.add_argument("--effort", default="quick", choices=("quick", "normal", "thorough"))
    parser.add_argument("--only", default="", help="part of the pairs' names")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    sources, verdicts, tried = Sources(options.shared, options.out), list[Verdict](), 0
    for name, make in PAIRS.items():
        if options.only not in name:
            continue
        try:
            pair = make(sources)
        except NotThereError as missing:
            print(f"\nskipped: {missing}", flush=True)
            continue
        tried += 1
        found = run(name, pair, sources, options.effort)
        if isinstance(found, str):
            print(found, flush=True)
            continue
        print(f"{'ok' if found.is_ok else 'NOT OK'}: {found}", flush=True)
        verdicts.append(found)
    print(f"\n{table(verdicts)}")
    if options.json:
        summary = {
            "ok": sum(v.is_ok for v in verdicts),
            "of": tried,
            "smaller": [v.smaller for v in verdicts],
            "accuracy_drop": [v.accuracy_drop for v in verdicts],
        }
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
