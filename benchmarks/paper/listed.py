"""Few of a list: `wootz search --subspace` beside trying all configurations, the smallest first (Tables 3 and 4).

    python benchmarks/paper/listed.py NETWORK --data DATA --name NAME [--out FOLDER] [--drops 0.01,0.02,0.03] \
        [--count 16 --draws 3] [--report] [further options of `wootz search`]

NAME in --out is a folder of what `table2.py` has left, with --default-only or without: the configurations of each of
its seeds, or so many of them, drawn so often, are searched for the smallest network that loses no more than the drop,
once for each drop, with nothing known before. Further options are to be those of `table2.py`. What is finished isn't
run again, and what was interrupted goes on; --report prints what is there, and runs nothing.

Seconds are the processor's: all that the search does, planning and checks included; of block-trained and of default
networks those from the first training on, up to the first network that loses no more than the drop. "default, given up"
is what default networks would take had their trainings ended as those of a search with --give-up do: the seconds of the
steps up to there, by the tests that were made.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from arguments import experiment_arguments
from courses import Course, Network
from explorer import Explorer, course_in, full_network, objective
from machine import machine
from table2 import DEFAULT, OUT, RUN, finished
from table4 import Exploration, explored

from wootz.frontend.objective import parse_objective
from wootz.runtime.result import RunResult, TrainedNetworkResult
from wootz.runtime.tasks.early_end import EarlyEnd, early_end
from wootz.runtime.training import Curve

MOST_DRAWS = 10
"""That the summary looks for."""


@dataclass(frozen=True)
class Listed:
    """A search of the configurations of `run` for the smallest network that loses no more than `drop`; of `count` of
    them, the `draw`-th time, where that is not 0."""

    run: Path
    drop: float
    count: int = 0
    draw: int = 0

    @property
    def folder(self) -> Path:
        drawn = f"{self.count}-{self.draw}-" if self.count else ""
        return self.run.with_name(f"listed-{drawn}{self.drop:g}")

    def search(self, explorer: Explorer) -> None:
        seed = int(self.run.parent.name.removeprefix("seed-"))
        explorer.explore("search", self.folder, objective(self.drop), seed, "--subspace", self._subspace())

    def _subspace(self) -> Path:
        (of_all,) = self.run.parent.glob("subspace-*.json")
        if not self.count:
            return of_all
        rows = json.loads(of_all.read_text())
        file = self.run.with_name(f"drawn-{self.count}-{self.draw}.json")
        file.write_text(json.dumps([rows[index] for index in self._configurations(range(len(rows)))]))
        return file

    def _configurations(self, of_all: Sequence[int]) -> list[int]:
        return random.Random(self.draw).sample(sorted(of_all), self.count) if self.count else list(of_all)

    @property
    def explorations(self) -> dict[str, Exploration] | None:
        """By what explores: how many networks were tried, in which time, and the size of what was found. None for a
        search that isn't finished."""
        course = course_in(self.folder, is_default=False, by_processor=True)
        if course is None:
            return None
        least = full_network(self.run).quality - self.drop
        best = course.best(least)
        courses = tried_all(self.run)
        courses = {"default": courses["default"], "default, given up": self._given_up(courses["default"]), **courses}
        found = {kind: self._one_by_one(of_all, least) for kind, of_all in courses.items()}
        chosen = Exploration(len(course.networks), course.seconds, None if best is None else best.size)
        return {**found, "search of the list": chosen}

    def _given_up(self, default: Course) -> Course:
        result = RunResult.load(self.run)
        explored = result.networks if result.baseline is None else result.baseline.networks
        curves = {n.index: n.curve for n in explored if isinstance(n, TrainedNetworkResult)}
        assert result.images is not None
        asked = parse_objective(objective(self.drop), "the drop")
        end = early_end(asked, full_network(self.run).quality, gives_up=True, images=result.images.validation)
        assert end is not None
        return replace(default, networks=tuple(given_up(n, curves[n.index], end) for n in default.networks))

    def _one_by_one(self, course: Course, least: float) -> Exploration:
        """The smallest first, blocks before them."""
        among = self._configurations([network.index for network in course.networks])
        found = explored(course.networks, set(among), least)
        return replace(found, seconds=course.pretraining + found.seconds)

    @property
    def speedup(self) -> float | None:
        """The time of default networks over that of the search."""
        found = self.explorations
        return None if found is None else found["default"].seconds / found["search of the list"].seconds


def given_up(network: Network, curve: Curve, end: EarlyEnd) -> Network:
    """A network whose training was made whole, by `curve`, as it were had `end` ended it."""
    most = curve[-1][0]
    made = (i for i, (_, value) in enumerate(curve) if end.met(value) or end.given_up(curve[: i + 1], most))
    last = next(made, len(curve) - 1)
    best = max(value for _, value in curve[: last + 1])
    return replace(network, own=network.own * curve[last][0] / most, accuracy=best)


def trained_runs(folder: Path) -> list[Path]:
    """Those of `table2.py`, of both kinds of networks or of default ones alone."""
    return [run for name in (RUN, DEFAULT) for run in finished(folder, name)]


def tried_all(run: Path) -> dict[str, Course]:
    """The networks of such a run by their kinds: all configurations are among them."""
    default = course_in(run, is_default=run.name == RUN, by_processor=True)
    block_trained = course_in(run, is_default=False, by_processor=True) if run.name == RUN else None
    courses = {"default": default, "block-trained": block_trained}
    return {kind: course for kind, course in courses.items() if course is not None}


def searches_of(run: Path, count: int, drop: float) -> list[Listed]:
    """Those of so many of the run's configurations, finished or not."""
    if len(tried_all(run)["default"].networks) == count:
        return [Listed(run, drop)]
    return [Listed(run, drop, count, draw) for draw in range(MOST_DRAWS)]


def lines(searches: Sequence[Listed]) -> Iterator[str]:
    yield "| drop, seed | networks | tried | seconds | of full | speedup |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for search in searches:
        explorations, full = search.explorations or {}, full_network(search.run).model_size
        for way, found in explorations.items():
            case = f"{search.drop:g}, {search.run.parent.name.removeprefix('seed-')}"
            drawn = f" ({search.count}, draw {search.draw})" if search.count else ""
            of_full = "none" if found.size is None else f"{100 * found.size / full:.1f} %"
            speedup = explorations["default"].seconds / found.seconds
            yield f"| {case}{drawn} | {way} | {found.tried} | {found.seconds:.0f} | {of_full} | {speedup:.1f} |"


def drops(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = experiment_arguments(__doc__, OUT)
    parser.add_argument("--drops", type=drops, default=[0.01, 0.02, 0.03])
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--draws", type=int, default=1)
    options, further = parser.parse_known_args()
    explorer = Explorer(options.network, options.data, options.threads, ("--reference", "given", *further))
    searches = [
        Listed(run, drop, options.count, draw)
        for run in trained_runs(options.out / options.name)
        for draw in range(options.draws)
        for drop in options.drops
    ]
    print(machine())
    for search in () if options.report else searches:
        search.search(explorer)
    for line in lines(searches):
        print(line)


if __name__ == "__main__":
    main()
