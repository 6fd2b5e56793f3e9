"""A search beside the enumeration of random configurations: the same network, data, objective, solvers and machine.

python benchmarks/search.py net.onnx --data photographs/ --objective "min FLOPs constraint Accuracy >= full - 0.02" \
    [--configurations 16] [--effort quick] [--out FOLDER] [--json] [further options of both commands]

One objective, one seed, no other tool: what a search is worth beside an enumeration in one situation.

Each command has a store of its own, so that none takes from the other what it has trained; the one that is interrupted
goes on when this is run again. Printed are what each found, the networks that it fine-tuned, and its seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from wootz.runtime.result import RunResult


def found(result: RunResult) -> dict[str, object]:
    """What a run came to, beside the full network."""
    best, full = result.best, result.full
    known = {"fine_tuned": result.networks_evaluated, "seconds": round(result.seconds.total)}
    if best is None:
        return {**known, "best": None}
    return {
        **known,
        "parameters": best.model_size,
        "parameters_of_full": round(best.model_size / full.model_size, 4),
        "flops_of_full": round(best.flops / full.flops, 4),
        "times_as_fast": None if result.speed is None else round(result.speed.factor, 2),
        "accuracy": best.accuracy,
        "test_accuracy": best.test_accuracy,
    }


def explore(command: str, out: Path, arguments: list[str], further: list[str]) -> RunResult:
    folder = out / command
    wootz = Path(sys.executable).parent / "wootz"
    subprocess.run(
        [wootz, command, *arguments, "--store", out / f"store-{command}", "--out", folder, *further],
        stdout=sys.stderr,
        check=False,
    )
    return RunResult.load(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--objective", default="min ModelSize constraint Accuracy >= full - 0.01")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-search"))
    parser.add_argument("--json", action="store_true")
    options, further = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    subspace = options.out / "subspace.json"
    wootz = Path(sys.executable).parent / "wootz"
    sample = [wootz, "subspace", "sample", options.model, "--rates", "0.3,0.5,0.7", "--count", options.configurations]
    subprocess.run([*map(str, sample), "-o", subspace], check=True, stdout=sys.stderr)
    arguments = [options.model, "--data", options.data, "--objective", options.objective, "--effort", options.effort]
    arguments += further
    results = {
        "search": explore("search", options.out, arguments, []),
        "run": explore("run", options.out, arguments, ["--subspace", str(subspace)]),
    }
    rows = {name: found(result) for name, result in results.items()}
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    for name, row in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
