"""Feeds readers with damaged files: each has to end in a result, or in one line that names the file, soon.

    python tests/fuzz/driver.py                      # every reader, 1,000 inputs each
    python tests/fuzz/driver.py onnx --inputs 100000 --seed 3
    python tests/fuzz/driver.py onnx --only 4711     # one input again, with its traceback

An input is made from the reader's seeds by its mutations; the reader's name, the seed and the input's number say which.
Inputs are read in a child process of bounded memory, so that one that kills the process is found, and the next follows.
What went wrong is kept in build/fuzz.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from wootz.passes.errors import LONGEST_MESSAGE, WootzError

MODULES = ("model_readers", "caffe_readers", "data_readers", "store_readers", "run_readers")
"""Beside this file; each has a tuple READERS."""
KEPT = Path(__file__).parents[2] / "build" / "fuzz"
LONGEST_S = 10.0
"""For one input; a thousand small ones take a second or so."""
FEWEST = 20
"""Inputs that a child gets, however long it takes to begin."""
LARGEST_GROWTH = 2**29
"""Bytes by which the process may have grown after an input."""
MEMORY = 2**32
"""Bytes of addresses beyond those taken at the start: more isn't given to the child."""

Mutation = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Reader:
    """`read` takes a file named `file_name` in an empty folder. `seeds` are valid contents, small ones."""

    name: str
    read: Callable[[Path], object]
    file_name: str
    seeds: Sequence[bytes]
    mutations: Sequence[Mutation]

    def input(self, seed: int, number: int) -> bytes:
        """The content of one input: a seed after one to four mutations."""
        chance = random.Random(f"{self.name} {seed} {number}")
        content = chance.choice(self.seeds)
        for _ in range(chance.choice((1, 1, 2, 4))):
            content = chance.choice(self.mutations)(chance, content)
        return content


@dataclass
class Report:
    """How many inputs were `accepted` or `refused`, and what is wrong with others: number -> fault."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[int, str] = field(default_factory=dict)


def readers() -> dict[str, Reader]:
    """All readers, by name."""
    return {reader.name: reader for name in MODULES for reader in import_module(name).READERS}


def fuzz(name: str, seed: int, numbers: range, until: float = float("inf")) -> Report:
    """Feeds the inputs `numbers` to a reader, FEWEST of them and as many as there is time for (`until` as of
    `time.monotonic`)."""
    report = Report()
    next_one = numbers.start
    while next_one < numbers.stop and time.monotonic() < until:
        for number, outcome in _outcomes_of_child(name, seed, range(next_one, numbers.stop), until):
            next_one = number + 1
            if outcome in ("accepted", "refused"):
                report.counts[outcome] += 1
            else:
                report.faults[number] = outcome
    return report


def _outcomes_of_child(name: str, seed: int, numbers: range, until: float) -> Iterator[tuple[int, str]]:
    """The outcomes from a child process, up to the one that ends it."""
    command = [sys.executable, __file__, name, "--seed", str(seed), "--child", str(numbers.start), str(numbers.stop)]
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said)
        assert child.stdout is not None
        number = numbers.start
        try:
            while number < numbers.stop and (number < numbers.start + FEWEST or time.monotonic() < until):
                patience = LONGEST_S + (30 if number == numbers.start else 0)  # the first one waits for imports
                if not select.select([child.stdout], [], [], patience)[0]:
                    yield number, f"takes more than {LONGEST_S:g} s"
                    return
                line = child.stdout.readline()
                if not line:
                    said.seek(0)
                    last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                    yield number, f"the process ended with {child.wait()}: {' '.join(last)}"
                    return
                number, outcome = json.loads(line)
                yield number, outcome
                number += 1
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def read_all(reader: Reader, seed: int, numbers: range) -> None:
    """The child: prints a line for each input. What readers print themselves goes elsewhere."""
    channel, sys.stdout = sys.stdout, sys.stderr
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for number in numbers:
        print(json.dumps([number, outcome_of(reader, reader.input(seed, number))]), file=channel, flush=True)


def outcome_of(reader: Reader, content: bytes) -> str:
    """`accepted`, `refused`, or what is wrong with how the reader ended."""
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, reader.file_name)
        file.write_bytes(content)
        try:
            reader.read(file)
            outcome = "accepted"
        except WootzError as error:
            outcome = _judged(str(error), file)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:200]}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) * 1024
    return outcome if grown < LARGEST_GROWTH else f"takes {grown >> 20} MiB"


def _judged(message: str, file: Path) -> str:
    if not message.isprintable() or len(message) > 2 * LONGEST_MESSAGE:
        return f"the message is not one line of bounded length: {message[:200]!r}"
    if str(file) not in message:
        return f"the message doesn't name the file: {message[:200]}"
    return "refused"


# Mutations of bytes


def flip_bytes(chance: random.Random, content: bytes) -> bytes:
    """Other values for one to eight bytes."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 8) if changed else 0):
        changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(changed)


def cut(chance: random.Random, content: bytes) -> bytes:
    """Without a piece; often without the end."""
    start = chance.randrange(len(content) + 1)
    return content[:start] + (content[chance.randint(start, len(content)) :] if chance.random() < 0.5 else b"")


def repeat(chance: random.Random, content: bytes) -> bytes:
    """A piece twice or more, somewhere."""
    start = chance.randrange(len(content) + 1)
    piece = content[start : start + chance.choice((1, 4, 16, 64))] * chance.choice((1, 2, 100))
    at = chance.randrange(len(content) + 1)
    return content[:at] + piece + content[at:]


BYTE_MUTATIONS = (flip_bytes, cut, repeat)


# Mutations of text

HOSTILE_WORDS = (
    *("-1", "0", "1", "4294967296", "9223372036854775808", "-9223372036854775809", "1e39", "-1e400", "nan", "inf"),
    *("", '"', '"\\n\\u2028"', "{", "}", "[", "]", "(", ")", "<", ">", ",", ":", "=", "#", "é\x00", "x" * 5000),
)


def _words(text: str) -> list[str]:
    """Names and numbers, spaces, and single other characters."""
    words: list[str] = []
    for c in text:
        if words and c.isalnum() and words[-1][-1:].isalnum():
            words[-1] += c
        else:
            words.append(c)
    return words


def change_word(chance: random.Random, content: bytes) -> bytes:
    """Another word in the place of one: of the text itself, or a hostile one."""
    words = _words(content.decode(errors="replace"))
    if words:
        words[chance.randrange(len(words))] = chance.choice((*HOSTILE_WORDS, *words[:200]))
    return "".join(words).encode(errors="replace")


def swap_words(chance: random.Random, content: bytes) -> bytes:
    words = _words(content.decode(errors="replace"))
    if words:
        a, b = chance.randrange(len(words)), chance.randrange(len(words))
        words[a], words[b] = words[b], words[a]
    return "".join(words).encode(errors="replace")


def change_number(chance: random.Random, content: bytes) -> bytes:
    """Another number in the place of one: the likeliest way to a valid text that means something else."""
    words = _words(content.decode(errors="replace"))
    numbers = [i for i, word in enumerate(words) if word.isdigit()]
    if numbers:
        words[chance.choice(numbers)] = chance.choice(("-1", "0", "1", "2", "3", "7", "1000", "4294967296", "1e39"))
    return "".join(words).encode(errors="replace")


def move_line(chance: random.Random, content: bytes) -> bytes:
    """A line lost, repeated or elsewhere."""
    lines = content.splitlines(keepends=True)
    if lines:
        line = lines.pop(chance.randrange(len(lines)))
        for _ in range(chance.choice((0, 1, 1, 2))):
            lines.insert(chance.randint(0, len(lines)), line)
    return b"".join(lines)


def nest(chance: random.Random, content: bytes) -> bytes:
    """A piece inside many brackets, or an opening bracket without end."""
    opening, closing = chance.choice((b"[]", b"{}", b"()", b"<>")[:]).decode()
    depth, at = chance.choice((2, 100, 5000)), chance.randrange(len(content) + 1)
    end = min(len(content), at + chance.choice((0, 1, 20)))
    inside = content[at:end] + (closing.encode() * depth if chance.random() < 0.5 else b"")
    return content[:at] + opening.encode() * depth + inside + content[end:]


TEXT_MUTATIONS = (change_word, swap_words, change_number, change_number, move_line, nest, *BYTE_MUTATIONS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="all, if none is named")
    parser.add_argument("--inputs", type=int, default=1000, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="reads one input here, without bounds")
    parser.add_argument("--child", type=int, nargs=2, metavar=("FROM", "TO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    known = readers()
    names = options.readers or list(known)
    if options.child:
        read_all(known[names[0]], options.seed, range(*options.child))
        return 0
    if options.only is not None:
        file = Path(tempfile.mkdtemp()) / known[names[0]].file_name
        file.write_bytes(known[names[0]].input(options.seed, options.only))
        print(file)
        known[names[0]].read(file)
        return 0
    faults = 0
    for name in names:
        report = fuzz(name, options.seed, range(options.inputs))
        print(f"{name:12} {options.inputs:>8,} inputs  {report.counts['accepted']:>8,} accepted  ", end="")
        print(f"{report.counts['refused']:>8,} refused  {len(report.faults):>6,} faults", flush=True)
        for number, fault in report.faults.items():
            KEPT.mkdir(parents=True, exist_ok=True)
            suffix = Path(known[name].file_name).suffix
            (KEPT / f"{name}-{options.seed}-{number}{suffix}").write_bytes(known[name].input(options.seed, number))
            print(f"  --only {number}: {fault}")
        faults += len(report.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
