"""Prints the finished run in a folder as Markdown: what it found, and how block-trained and default networks compare.

python benchmarks/summarize_run.py runs/flowers
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from wootz.runtime.result import Exploration, FailedFullNetworkResult, RunResult


def main(folder: Path) -> None:
    result = RunResult.load(folder)
    full = result.full
    if isinstance(full, FailedFullNetworkResult):
        sys.exit(f"the full network could not be trained: {full.reason}")
    machine = result.environment
    print(f"`{result.network}` on `{Path(result.data).name}`, objective `{result.objective.text}`; {machine.platform},")
    print(f"{machine.runtime}, {machine.workers} worker(s). Full network: {full.model_size:,} parameters,")
    print(f"validation accuracy {full.quality:.4f}, test {_number(full.test_quality)}, {full.origin}")
    print(f"in {full.seconds:.0f} s.")
    print(f"{len(result.blocks)} tuning blocks, pre-trained in {result.seconds.pretraining:.0f} s.\n")
    print("| networks | tried | pre-training, s | exploration, s | best: parameters | of full | validation | test |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print(_found("block-trained", result.block_trained, result, result.seconds.pretraining))
    if result.baseline is not None:
        print(_found("default", result.baseline, result, 0.0))
        common = {n.index for n in result.baseline.trained} & {n.index for n in result.block_trained.trained}
        print(
            f"\nThe {len(common)} configurations that were tried both ways (median accuracy on the validation split):\n"
        )
        print("| networks | initial | final | seconds a network |")
        print("| --- | --- | --- | --- |")
        print(_medians("block-trained", result.block_trained, common))
        print(_medians("default", result.baseline, common))


def _found(title: str, exploration: Exploration, result: RunResult, pretraining: float) -> str:
    cells = [
        title,
        f"{exploration.networks_evaluated}" + ("" if result.search else f" of {result.networks_feasible}"),
        f"{pretraining:.0f}",
        f"{exploration.seconds:.0f}",
    ]
    best = exploration.best
    if best is None:
        return _row([*cells, "none", "", "", ""])
    share = f"{100 * best.model_size / result.full.model_size:.0f} %"
    return _row([*cells, f"{best.model_size:,}", share, f"{best.quality:.4f}", _number(best.test_quality)])


def _medians(title: str, exploration: Exploration, indices: set[int]) -> str:
    networks = [n for n in exploration.trained if n.index in indices]
    columns = ([n.initial_quality for n in networks], [n.quality for n in networks], [n.seconds for n in networks])
    initial, final, seconds = (median(column) for column in columns)
    return _row([title, f"{initial:.3f}", f"{final:.3f}", f"{seconds:.1f}"])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
