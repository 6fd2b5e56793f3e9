"""Mutation testing of the core: plants faults in the source, one at a time, and looks whether a test fails.

    make mutants [MUTANTS='--target planner --each 50']

Runs with the Python of a virtual environment of its own that has Wootz installed (not editable: the faults are planted
there) and cosmic-ray. Of all faults that cosmic-ray knows for a target of core.toml, `--each` are drawn. Prints one
line a target, then the faults that no test noticed; the last line is JSON, target -> [noticed, planted].
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome

TESTS = Path(__file__).parents[1]
MEMORY = 12 << 30
"""Bytes that a test run may take: a fault can make a loop endless."""
ANNOTATIONS = "BitOr"
"""In what cosmic-ray calls its operators: most `|` of this source stand in types, which nothing evaluates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="one target of core.toml; default all")
    parser.add_argument("--each", type=int, default=25, help="how many faults of each target")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (package,) = Path(sys.prefix).glob("lib/python*/site-packages/wootz")
    os.chdir(TESTS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    for compiled in package.rglob("*.pyc"):
        compiled.unlink()  # it would hide a fault that is planted in the same second
    scores, survivors = {}, []
    for target in tomllib.loads((TESTS / "mutation" / "core.toml").read_text())["target"]:
        if options.target not in (None, target["name"]):
            continue
        unnoticed = plant(package, target, options.each, options.seed)
        scores[target["name"]] = [options.each - len(unnoticed), options.each]
        survivors += [f"\nNot noticed by the tests of {target['name']}:\n{diff}" for diff in unnoticed]
        print(f"{target['name']}: {options.each - len(unnoticed)} of {options.each} noticed", flush=True)
    print("\n".join(survivors))
    print(json.dumps(scores))


def plant(package: Path, target: dict[str, Any], count: int, seed: int) -> list[str]:
    """Plants `count` faults in the modules of `target`, one after the other; the diffs of those not noticed."""
    tests = " ".join(str(TESTS.parent / test) for test in target["tests"])
    command = f"{sys.executable} -m pytest --rootdir={TESTS} --import-mode=importlib -x -q -p no:cacheprovider {tests}"
    start = time.monotonic()
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)
    limit = 30 + 5 * (time.monotonic() - start)
    with use_db(":memory:", WorkDB.Mode.create) as faults:
        init([package / module for module in target["modules"]], faults, {})
        items = [i for i in faults.work_items if ANNOTATIONS not in i.mutations[0].operator_name]
    known = sorted(items, key=lambda item: str(item.mutations))
    unnoticed = []
    for item in random.Random(seed).sample(known, count):
        result = mutate_and_test(item.mutations, command, limit)
        if result.test_outcome == TestOutcome.SURVIVED:
            unnoticed.append(result.diff or str(item.mutations))
    return unnoticed


if __name__ == "__main__":
    main()
