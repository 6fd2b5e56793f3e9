"""What Wootz makes of networks that are no classifiers with labels: the four recipes of examples/tasks.

    python benchmarks/any_task.py [--out FOLDER] [--only PART] [--json]

    segmentation       a U-Net by the mean intersection over union, a metric of the user
    detection          a detector with NonMaxSuppression by the mean average precision, a metric of the user, and once
                       more by the error of its outputs
    unlabelled         a classifier by its agreement with the full one, without labels
    super-resolution   a residual network by the peak signal-to-noise ratio, a metric of the user

The full networks are trained once, from scratch, and kept in --out. Then `wootz run --baseline` makes them smaller, on
one thread. Each result is judged here without Wootz: plain ONNX Runtime runs best.onnx and teacher.onnx, fed as
best.json says, on the validation and the test images. A task is ok where the validation quality that its runs promise
is found again and meets the objective, and the networks are smaller.

For the classifier all networks of one subspace are trained without labels, and once more with them. The rank
correlation (Spearman's) of their agreements with their accuracies says how far labels are needed to tell the better
network.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from machine import machine
from scipy.stats import spearmanr

EXAMPLES = Path(__file__).parents[1] / "examples" / "tasks"
SEEN_AGAIN = 1e-3
"""Difference to the promised quality, in its own size, that is none: best.onnx sums in another order."""

Arrays = dict[str, np.ndarray]
Judge = Callable[[Arrays, Arrays, Any], float]
"""From the outputs of the network, those of the full one, and the targets, to the quality."""


@dataclass(frozen=True)
class Bound:
    """What the smallest network has to keep of a quality: at least `value`, or all but `loss` of the full network's; of
    an error no more than `value`."""

    quality: str
    value: float = 0.0
    loss: float | None = None
    is_error: bool = False

    def __str__(self) -> str:
        if self.loss is not None:
            return f"{self.quality} >= full - {self.loss}"
        return f"{self.quality} {'<=' if self.is_error else '>='} {self.value}"

    def is_met(self, found: float, full: float) -> bool:
        if self.loss is not None:
            return found >= full - self.loss
        return found <= self.value if self.is_error else found >= self.value


@dataclass(frozen=True)
class Part:
    """A run: which of the recipe's data, its bound, and how that quality is measured here. `own` is the metric of the
    recipe, which the bound may be of or not."""

    title: str
    data: str
    bound: Bound
    judge: Judge
    own: str = ""


@dataclass(frozen=True)
class Task:
    """`module` has the recipe. With `rates` a random subspace of these and `networks` configurations is tried."""

    module: str
    labels: str
    parts: tuple[Part, ...]
    rates: str = ""
    networks: int = 8


def only(outputs: Arrays) -> np.ndarray:
    (found,) = outputs.values()
    return found


def own_metric(task: str, metric: str) -> Judge:
    """A metric of the recipe."""

    def judge(outputs: Arrays, full: Arrays, targets: Any) -> float:
        found = outputs if len(outputs) > 1 else only(outputs)
        return float(getattr(recipe(task), metric)(found, targets))

    return judge


def agreement(outputs: Arrays, full: Arrays, targets: Any) -> float:
    return float((only(outputs).argmax(1) == only(full).argmax(1)).mean())


def accuracy(outputs: Arrays, full: Arrays, targets: Any) -> float:
    return float((only(outputs).argmax(1) == targets).mean())


def output_error(outputs: Arrays, full: Arrays, targets: Any) -> float:
    pairs = [(outputs[name].astype(np.float64), full[name].astype(np.float64)) for name in full]
    return float(np.mean([((found - wanted) ** 2).mean() / (wanted**2).mean() for found, wanted in pairs]))


def by_own(task: str, metric: str, loss: float) -> Part:
    return Part(f"{task}, {metric}", "data", Bound(metric, loss=loss), own_metric(task, metric), metric)


MILD = "0,0.3,0.5"
TASKS: Mapping[str, Task] = {
    "segmentation": Task("segmentation", "data", (by_own("segmentation", "mean_iou", 0.05),), MILD),
    "detection": Task(
        "detection",
        "data",
        (
            by_own("detection", "mean_average_precision", 0.05),
            Part(
                "detection, OutputError",
                "images",
                Bound("OutputError", 0.05, is_error=True),
                output_error,
                "mean_average_precision",
            ),
        ),
    ),
    "unlabelled": Task(
        "unlabelled",
        "labelled",
        (Part("unlabelled, Agreement", "images", Bound("Agreement", 0.97), agreement),),
        rates="0.3,0.5,0.7,0.8,0.9",
        networks=12,
    ),
    "super-resolution": Task("super_resolution", "data", (by_own("super_resolution", "psnr", 0.1),)),
}


def recipe(name: str) -> Any:
    return importlib.import_module(f"wootz.examples.tasks.{name}")


# Judging, with nothing of Wootz.


def outputs_of(network: Path, fed: Mapping[str, Any], images: np.ndarray) -> Arrays:
    """What a file gives for pixels [n, channels, height, width], fed as `input` of best.json says."""
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    mean, scale = (np.asarray(fed[name], np.float32).reshape(-1, 1, 1) for name in ("mean", "scale"))
    data = (images.astype(np.float32) - mean) * scale
    names = [output.name for output in session.get_outputs()]
    batches = [session.run(names, {fed["name"]: data[i : i + 50]}) for i in range(0, len(data), 50)]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*batches, strict=True), strict=True)}


@dataclass(frozen=True)
class Verdict:
    """What a run found: `promised` on the validation images, `found` there and `full`, that of the full network, by
    plain ONNX Runtime, and both again on the test images; `own` and `full_own` are what the recipe's metric says of
    both on the validation images."""

    title: str
    seconds: float
    smaller: float
    promised: float
    found: float
    full: float
    test: float
    full_test: float
    meets_bound: bool
    own: float | None
    full_own: float | None

    @property
    def is_ok(self) -> bool:
        is_seen_again = abs(self.promised - self.found) <= SEEN_AGAIN * max(1.0, abs(self.promised))
        return is_seen_again and self.meets_bound and self.smaller < 1


def judged(part: Part, task: Task, run: Path, seconds: float) -> Verdict:
    described = json.loads((run / "best.json").read_text())
    splits = getattr(recipe(task.module), task.labels)()
    outputs = {
        (which, split): outputs_of(run / described[which]["file"], described["input"], splits[split][0])
        for which in ("best", "full")
        for split in ("val", "test")
    }

    def value(judge: Judge, which: str, split: str) -> float:
        return judge(outputs[which, split], outputs["full", split], splits[split][1])

    found, full = (value(part.judge, which, "val") for which in ("best", "full"))
    own = own_metric(task.module, part.own) if part.own else None
    return Verdict(
        title=part.title,
        seconds=round(seconds),
        smaller=round(described["best"]["parameters"] / described["full"]["parameters"], 4),
        promised=described["best"]["validation_quality"],
        found=round(found, 4),
        full=round(full, 4),
        test=round(value(part.judge, "best", "test"), 4),
        full_test=round(value(part.judge, "full", "test"), 4),
        meets_bound=part.bound.is_met(found, full),
        own=None if own is None else round(value(own, "best", "val"), 4),
        full_own=None if own is None else round(value(own, "full", "val"), 4),
    )


# Runs.


@dataclass(frozen=True)
class Bench:
    folder: Path

    def full_network(self, task: Task) -> Path:
        """Trained where it isn't there yet."""
        file = self.folder / f"{task.module}.onnx"
        if not file.exists():
            begin = time.monotonic()
            self._call([sys.executable, EXAMPLES / f"{task.module}.py", file], file.with_suffix(".training.log"))
            print(f"{file} trained in {time.monotonic() - begin:.0f} s", flush=True)
        return file

    def run(self, task: Task, part: Part, objective: str, out: Path) -> float:
        """Gives the seconds it took. Raises SystemExit where it found nothing."""
        name = f"{task.module}.py"
        words = ["--data", f"{EXAMPLES / name}:{part.data}", "--objective", objective, "--effort", "quick"]
        if part.own == part.bound.quality:
            words += ["--metric", f"{EXAMPLES / name}:{part.bound.quality}"]
        if task.rates:
            words += ["--subspace", str(self._subspace(task))]
        rest = ["--baseline", "--threads", 1, "--fresh", "--store", self.folder / "store", "--out", out]
        begin = time.monotonic()
        self._call([wootz(), "run", self.full_network(task), *words, *rest], out.with_suffix(".log"))
        return time.monotonic() - begin

    def _subspace(self, task: Task) -> Path:
        file = self.folder / f"{task.module}.subspace.json"
        if not file.exists():
            random = ["--rates", task.rates, "--count", task.networks, "--seed", 1, "-o", file]
            self._call([wootz(), "subspace", "sample", self.full_network(task), *random], file.with_suffix(".log"))
        return file

    def _call(self, command: Sequence[object], log: Path) -> None:
        with log.open("w") as file:
            environment = {**os.environ, "COLUMNS": "100"}
            done = subprocess.run(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))} failed: see {log}\n{log.read_text()[-500:]}")


def wootz() -> Path:
    return Path(sys.executable).parent / "wootz"


@dataclass(frozen=True)
class Fidelity:
    """What is known without labels beside what is known with them, on the validation images.

    `rank_correlation` is Spearman's, of agreements without labels and accuracies with them over all `networks` of the
    subspace, block-trained and default. Of the network that was found without labels it has the accuracy, and that of
    the same configuration trained with labels, by `of_same`, and of the best one of no more parameters.
    """

    rank_correlation: float
    networks: int
    found: float
    of_same: float
    of_best: float


def fidelity(bench: Bench, task: Task, unlabelled: Path) -> Fidelity:
    """`unlabelled` is the run that found the smallest network without labels."""
    results = []
    for data, metric in (("images", "Agreement"), ("labelled", "Accuracy")):
        out = bench.folder / f"all_by_{metric}"
        bench.run(
            task, Part(out.name, data, Bound(metric), agreement), f"max {metric} constraint ModelSize < full", out
        )
        results.append(json.loads((out / "result.json").read_text()))
    agreements, accuracies = map(qualities, results)
    shared = sorted(agreements.keys() & accuracies.keys())
    correlation = spearmanr([agreements[k] for k in shared], [accuracies[k] for k in shared]).statistic
    best = json.loads((unlabelled / "result.json").read_text())["best"]
    described = json.loads((unlabelled / "best.json").read_text())
    images, labels = recipe(task.module).labelled()["val"]
    outputs = outputs_of(unlabelled / "best.onnx", described["input"], images)
    rivals = [n["quality"] for n in results[1]["networks"] if n["model_size"] <= best["model_size"]]
    return Fidelity(
        rank_correlation=round(float(correlation), 3),
        networks=len(shared),
        found=round(accuracy(outputs, {}, labels), 4),
        of_same=round(accuracies["block-trained", json.dumps(best["configuration"])], 4),
        of_best=round(max(rivals), 4),
    )


def qualities(result: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Of all networks that were trained, by what they began with and their configurations."""
    explored = {"block-trained": result["networks"], "default": result["baseline"]["networks"]}
    return {
        (start, json.dumps(network["configuration"])): network["quality"]
        for start, networks in explored.items()
        for network in networks
        if network["state"] == "trained"
    }


# What is printed.


def rows_of(title: str, run: Path) -> Iterator[str]:
    """A row for the block-trained networks of a run, and one for the default ones; qualities before and after
    fine-tuning are medians over the configurations that both tried, steps and seconds are of all fine-tunings,
    whenever they were."""
    result = json.loads((run / "result.json").read_text())
    full = result["full"]["model_size"]
    explorations = {"block-trained": result, "default": result["baseline"]}
    trained = {
        start: {json.dumps(n["configuration"]): n for n in found["networks"] if n["state"] == "trained"}
        for start, found in explorations.items()
    }
    shared = trained["block-trained"].keys() & trained["default"].keys()
    for start, found in explorations.items():
        networks, best = trained[start], found["best"]
        before, after = (np.median([networks[k][name] for k in shared]) for name in ("initial_quality", "quality"))
        steps, seconds = (sum(n[name] for n in networks.values()) for name in ("steps", "seconds"))
        size = f"{100 * best['model_size'] / full:.0f} %" if best else "none"
        quality = f"{best['quality']:.3f}" if best else ""
        yield (
            f"| {title} | {start} | {len(networks)} of {result['networks_total']} | {before:.3f} | {after:.3f} "
            f"| {size} | {quality} | {steps:,}, {seconds:.0f} s |"
        )


def slug(title: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/any_task"))
    parser.add_argument("--only", default="", help="part of the tasks' names")
    parser.add_argument("--json", action="store_true", help="end with a line of JSON")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine())
    bench, rows, ok, tried = Bench(options.out.absolute()), list[str](), 0, 0
    correlation: float | None = None
    for name, task in TASKS.items():
        if options.only not in name:
            continue
        verdicts = []
        for part in task.parts:
            run = bench.folder / slug(part.title)
            seconds = bench.run(task, part, f"min ModelSize constraint {part.bound}", run)
            verdicts.append(judged(part, task, run, seconds))
            print(f"{'ok' if verdicts[-1].is_ok else 'NOT OK'}: {verdicts[-1]}", flush=True)
            rows.extend(rows_of(part.title, run))
        tried, ok = tried + 1, ok + all(v.is_ok for v in verdicts)
        if name == "unlabelled":
            found = fidelity(bench, task, bench.folder / slug(task.parts[0].title))
            correlation = found.rank_correlation
            print(found, flush=True)
    head = "| task | networks | tried | before fine-tuning | after it | best: of full | quality | fine-tuning |"
    print("\n".join(["", head, "|" + " --- |" * 8, *rows]))
    if options.json:
        print(json.dumps({"tasks": tried, "ok": ok, "fidelity_rank_correlation": correlation}))


if __name__ == "__main__":
    main()
