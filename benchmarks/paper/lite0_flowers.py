"""From general to special, the paper's case: a network of ImageNet is brought to five kinds of flowers, then pruned.

    python benchmarks/paper/lite0_flowers.py --photographs flowers5_160/ --model efficientnet_lite0.onnx \
        [--out FOLDER] [--seeds 0] [--count 16] [--report] [options that `wootz run` and `wootz search` have]

--photographs is a folder {train,test}/CLASS/*.jpg. For each seed, so many of a class of those for training are for
validation, by which everything is chosen: the full network never learns from them. The test photographs are for the
report alone. The full network is trained and tested as --resize says, pruned ones and the full one beside them on whole
photographs.

teacher         the network, at the photographs' size, gets a new last layer and is fine-tuned: the full network
enumeration     COUNT random configurations of the rates 0.3, 0.5 and 0.7, the smallest first, from pre-trained blocks
default         the same from the remaining weights: what the paper calls the baseline
listed          a search of these configurations, once for each of --search-drops, with nothing known before
search          `wootz search` of all configurations, likewise

The objective is `min ModelSize constraint Accuracy >= full - DROP`. The enumerations go on until a network has the
strictest drop, and so tell what they find at the others, too. What is finished isn't run again; what was interrupted
goes on. Then a table is printed as Markdown; --report prints what is there, and runs nothing.

Seconds are the processor's until a way found its network, all that it does before included but the teacher's training,
which all have in common. A speedup is the default networks' time over the way's own. Where no network of a way will do,
it found the full one when it had tried all others, as in the paper's Table 3.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

sys.path.append(str(Path(__file__).parents[1]))

from explorer import Explorer, course_in, full_network, is_finished, objective
from machine import machine
from spread import spread

from wootz.runtime.result import RunResult
from wootz.runtime.run_directory import TEACHER_FILE

WAYS = ("enumeration", "default", "listed", "search")
OF_ONE_DROP = ("listed", "search")
PIXELS = ("--mean", "127", "--scale", "0.0078125", "--channel-order", "RGB")
"""What EfficientNet-Lite0 is fed: (pixel - 127) / 128."""
TEACHER = """type: "SGD" base_lr: 0.02 lr_policy: "cosine" warmup_iter: 45 max_iter: 900 momentum: 0.9
weight_decay: 0.0005 batch_size: 32 test_interval: 150 average_loss: 20
"""
ONE_STEP = """type: "SGD" base_lr: 0.001 lr_policy: "fixed" max_iter: 1 batch_size: 32
"""
"""Of the one pruned network that a run has to train beside the full one."""
OUT = Path("runs/paper/lite0_flowers")


@dataclass(frozen=True)
class Found:
    """What a way comes to at a drop: its smallest network that is good enough, after how many networks and seconds.

    `share` is that of the full network's parameters; `accuracy` is None where that is the full network itself.
    """

    tried: int
    seconds: float
    pretraining: float
    share: float
    accuracy: float | None


@dataclass(frozen=True)
class Results:
    """What the experiment has left in the folder `out`, with so many configurations in an enumeration."""

    out: Path
    count: int

    def folder(self, seed: int, way: str, drop: float | None = None) -> Path:
        """That of a run; searches have one for each drop."""
        of_count = way if way == "search" else f"{way}-{self.count}"
        return self.out / f"seed-{seed}" / (of_count if drop is None else f"{of_count}-{drop:g}")

    def teacher(self, seed: int) -> Path:
        return self.out / f"seed-{seed}" / "teacher"

    def found(self, seed: int, way: str, drop: float) -> Found | None:
        """None where the way wasn't gone to its end."""
        folder = self.folder(seed, way, drop if way in OF_ONE_DROP else None)
        course = course_in(folder, is_default=False, by_processor=True)
        if course is None:
            return None
        full = full_network(folder)
        least = full.reference_quality - drop
        best = course.best(least)
        share, accuracy = (1.0, None) if best is None else (best.size / full.model_size, best.accuracy)
        return Found(course.tried(least), course.seconds_to(least), course.pretraining, share, accuracy)

    def speedup(self, seed: int, way: str, drop: float) -> float | None:
        default, found = self.found(seed, "default", drop), self.found(seed, way, drop)
        return None if default is None or found is None else default.seconds / found.seconds


@dataclass(frozen=True)
class Experiment:
    """`size` is the height and width that the network gets, `held_back` the number of photographs a class for
    validation, `teacher` the solver of the full network's training, and `resize` how photographs get the network's size
    in it."""

    results: Results
    model: Path
    photographs: Path
    size: int
    held_back: int
    drops: tuple[float, ...]
    search_drops: tuple[float, ...]
    threads: int
    teacher: str
    resize: str
    further: tuple[str, ...]

    def run(self, seed: int, ways: Sequence[str]) -> None:
        self._train_teacher(seed)
        if not is_finished(self.results.teacher(seed)):
            return
        full, enumeration = self.results.teacher(seed) / TEACHER_FILE, self.results.folder(seed, "enumeration")
        explorer = Explorer(full, self._list(seed), self.threads, ("--reference", "given", *self.further))
        enumerated = (self.results.count, objective(min(self.drops)), seed)
        if "enumeration" in ways:
            explorer.enumerate(enumeration, *enumerated)
        if "default" in ways:
            explorer.enumerate(self.results.folder(seed, "default"), *enumerated, "--identifier", "none")
        subspace = explorer.subspace(enumeration, self.results.count, seed)
        for way, given in (("listed", ("--subspace", subspace)), ("search", ())):
            for drop in self.search_drops if way in ways else ():
                explorer.explore("search", self.results.folder(seed, way, drop), objective(drop), seed, *given)

    def _train_teacher(self, seed: int) -> None:
        folder = self.results.teacher(seed)
        if is_finished(folder):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        names = ("network.onnx", "teacher.prototxt", "one_step.prototxt")
        network, solver, one_step = (folder.with_name(name) for name in names)
        onnx.save(at_size(onnx.load(self.model), self.size), network)
        write_list(self.photographs, self.held_back, seed, self._list(seed))
        solver.write_text(self.teacher)
        one_step.write_text(ONE_STEP)
        solvers = ("--teacher-solver", solver, "--solver", one_step, "--pretrain-solver", one_step)
        explorer = Explorer(network, self._list(seed), self.threads, (*PIXELS, "--resize", self.resize))
        explorer.enumerate(folder, 1, "max Accuracy", seed, "--reference", "given", *solvers)

    def _list(self, seed: int) -> Path:
        return self.results.teacher(seed).with_name("photographs.csv")


def at_size(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """A network of images of a fixed size, for those of another one: its padding has to be right for that, too."""
    height, width = model.graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_value = width.dim_value = size
    return model


def write_list(photographs: Path, held_back: int, seed: int, file: Path) -> None:
    """The photographs with their classes and splits, so many of a class for validation, drawn by `seed`."""
    drawn = random.Random(seed)
    with file.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("path", "label", "split"))
        for kind in _folders(photographs / "train"):
            files = sorted(kind.iterdir())
            drawn.shuffle(files)
            for position, photograph in enumerate(files):
                rows.writerow((photograph.resolve(), kind.name, "val" if position < held_back else "train"))
        for kind in _folders(photographs / "test"):
            rows.writerows((photograph.resolve(), kind.name, "test") for photograph in sorted(kind.iterdir()))


def _folders(folder: Path) -> list[Path]:
    return sorted(inner for inner in folder.iterdir() if inner.is_dir())


# Reporting


def lines(results: Results, seeds: Sequence[int], drops: Sequence[float]) -> Iterator[str]:
    trained = [seed for seed in seeds if is_finished(results.teacher(seed))]
    yield from (_about_the_full_network(results.teacher(seed), seed) for seed in trained)
    yield "\n| drop | networks | tried | seconds | of it pre-training | of full | validation | speedup |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for drop in drops:
        for way in WAYS:
            found = [(seed, f) for seed in trained if (f := results.found(seed, way, drop)) is not None]
            if found:
                columns = (
                    spread([float(f.tried) for _, f in found], digits=0),
                    spread([f.seconds for _, f in found], digits=0),
                    spread([f.pretraining for _, f in found], digits=0),
                    spread([f.share for _, f in found], digits=3),
                    spread([f.accuracy for _, f in found], digits=4),
                    spread([results.speedup(seed, way, drop) for seed, _ in found]),
                )
                yield f"| {drop:g} | {way} | {' | '.join(columns)} |"


def _about_the_full_network(folder: Path, seed: int) -> str:
    full, images = full_network(folder), RunResult.load(folder).images
    assert images is not None
    return (
        f"Seed {seed}: {images.train:,} photographs for training, {images.validation} for validation, {images.test} "
        f"for testing; the full network has {full.model_size:,} parameters, and after {full.steps} steps "
        f"{full.quality:.4f} on validation and {full.test_quality:.4f} on test photographs."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--held-back", type=int, default=96)
    parser.add_argument("--seeds", type=_numbers, default=(0,))
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--drops", type=_fractions, default=(0.0, 0.01, 0.02))
    parser.add_argument("--search-drops", type=_fractions, default=(0.01, 0.0, 0.02))
    parser.add_argument("--only", type=lambda text: text.split(","), default=WAYS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resize", choices=("crop", "pad", "squash"), default="crop", help="as in wootz run")
    parser.add_argument("--teacher", type=Path, help="solver prototxt for the full network")
    parser.add_argument("--report", action="store_true")
    options, further = parser.parse_known_args()
    results = Results(options.out, options.count)
    experiment = Experiment(
        results=results,
        model=options.model,
        photographs=options.photographs,
        size=options.size,
        held_back=options.held_back,
        drops=options.drops,
        search_drops=options.search_drops,
        threads=options.threads,
        resize=options.resize,
        teacher=TEACHER if options.teacher is None else options.teacher.read_text(),
        further=tuple(further),
    )
    print(machine())
    for seed in () if options.report else options.seeds:
        experiment.run(seed, options.only)
    for line in lines(results, options.seeds, options.drops):
        print(line)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _fractions(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


if __name__ == "__main__":
    main()
