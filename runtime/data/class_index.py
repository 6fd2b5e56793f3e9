"""Which output of a network stands for which class: from a list, for ImageNet's folders, or in alphabetical order."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from wootz.passes.errors import InputError, reading

SYNSET = re.compile(r"n\d{8}")
"""WordNet's number of a noun, as ImageNet names its folders."""
SYNSET_LINE = re.compile(r"(n\d{8})\s+(\S.*)")
IMAGENET_CLASSES = 1000
MOST_OUTPUTS = 1_000_000
SHOWN = 8


@dataclass(frozen=True)
class ClassIndex:
    """`names` of the outputs, in their order, and the `labels` of folders, or of what a manifest calls classes."""

    names: tuple[str, ...]
    labels: Mapping[str, int]

    @staticmethod
    def of(names: Sequence[str]) -> ClassIndex:
        return ClassIndex(tuple(names), {name: label for label, name in enumerate(names)})

    def check(self, found: Iterable[str], location: Path) -> None:
        """Raises InputError for the first of the classes that is none of these."""
        unknown = next((name for name in found if name not in self.labels), None)
        if unknown is None:
            return
        reason = f"class {unknown!r} is not among the classes {', '.join(list(self.labels)[:SHOWN])}"
        if any(name.startswith(f"{unknown} ") for name in self.labels):
            reason += '; a text has nothing but a class a line: outputs by number need JSON, as {"class": output}'
        raise InputError(reason, location)


def read_class_index(file: Path, outputs: int = 0) -> ClassIndex:
    """A text with a class a line, in the order of the outputs, or JSON as `{class: output}`.

    Lines such as `n01440764 tench` name the folder, and the class. In JSON several folders may be one class; outputs
    that it leaves out are called by their number, up to `outputs`. Raises InputError for anything else.
    """
    with reading(file, "a text of class names in UTF-8"):
        text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".json":
        return _from_json(text, file, outputs)
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    described = [SYNSET_LINE.fullmatch(line) for line in lines]
    folders = [match[1] if match and all(described) else line for match, line in zip(described, lines, strict=True)]
    if repeated := next((name for name in folders if folders.count(name) > 1), None):
        raise InputError(f"it names the class {repeated!r} twice", file)
    if not folders:
        raise InputError("it names no class", file)
    names = [match[2] if match and all(described) else line for match, line in zip(described, lines, strict=True)]
    return ClassIndex(tuple(names), {folder: label for label, folder in enumerate(folders)})


def _from_json(text: str, file: Path, outputs: int) -> ClassIndex:
    with reading(file, "JSON as {class: output}, outputs from 0 on"):
        labels = json.loads(text)
    if not isinstance(labels, dict) or not labels:
        raise InputError('not JSON as {"class": output}', file)
    for name, label in labels.items():
        if type(label) is not int or not 0 <= label < (outputs or MOST_OUTPUTS):
            last = f" to {outputs - 1}" if outputs else " on"
            raise InputError(f"{name!r} is {repr(label)[:40]}: the network's outputs are numbers from 0{last}", file)
    names = [str(number) for number in range(max(outputs, max(labels.values()) + 1))]
    for name, label in reversed(labels.items()):
        names[label] = name
    return ClassIndex(tuple(names), labels)


def class_index(found: Collection[str], given: Path | None, folder: Path, outputs: int) -> ClassIndex:
    """The outputs of the classes that were `found`: as the file `given` says, or `classes.txt` in `folder`; as ImageNet
    counts them, where the network has that many `outputs`; else in alphabetical order."""
    beside = folder / "classes.txt"
    if given is not None or beside.is_file():
        return read_class_index(given or beside, outputs)
    if outputs == IMAGENET_CLASSES and found and all(SYNSET.fullmatch(name) for name in found):
        known = resources.files(__package__).joinpath("imagenet_synsets.txt").read_text().split()
        if set(found) <= set(known):
            return ClassIndex.of(known)
    return ClassIndex.of(sorted(found))


@dataclass(frozen=True)
class Indexed:
    """The `names` of the outputs, the output of each image, int64 [n], and what is to be told of that."""

    names: tuple[str, ...]
    labels: np.ndarray
    notes: tuple[str, ...] = ()


def indexed(
    labels: Sequence[str] | np.ndarray, names: Sequence[str] | None, given: Path | None, location: Path, outputs: int
) -> Indexed:
    """Which output each image's label means.

    `labels` are names of classes, which `class_index` numbers, or numbers of outputs, which are called as the file
    `given` says, or as `names` do, or by their number. Raises InputError for a label that is none.
    """
    if isinstance(labels, np.ndarray):
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= MOST_OUTPUTS:
            wrong = labels[(labels < 0) | (labels >= MOST_OUTPUTS)][0]
            raise InputError(f"there is the label {wrong}: labels number the classes, from 0 on", location)
        known = read_class_index(given, outputs).names if given else names
        return by_number(labels.astype(np.int64), known, outputs)
    index = class_index(sorted(set(labels)), given, location.parent, outputs)
    index.check(labels, location)
    return Indexed(index.names, np.array([index.labels[label] for label in labels], np.int64))


def by_number(labels: np.ndarray, names: Sequence[str] | None, outputs: int) -> Indexed:
    """The outputs that numbers mean: those from 0 on, but for numbers 1 to n without a gap, where there are not n + 1
    `names`, or without names as many `outputs`: then they were counted from 1."""
    present, last = np.unique(labels), int(labels.max(initial=0))
    counted_from_1 = last > 1 and np.array_equal(present, np.arange(1, last + 1))
    if counted_from_1 and (len(names) == last if names else outputs != last + 1):
        note = f"The labels are 1 to {last}: they are taken as counted from 1, so that 1 is the network's output 0."
        return Indexed(tuple(names or map(str, present)), labels - 1, (note,))
    if names:
        return Indexed(tuple(names), labels)
    numbered = tuple(map(str, range(last + 1)))
    missing = np.setdiff1d(np.arange(last + 1), present)
    if not missing.size:
        return Indexed(numbered, labels)
    shown = ", ".join(map(str, missing[:SHOWN])) + (", …" if missing.size > SHOWN else "")
    note = f"No image has the label {shown}: labels are taken as outputs of the network, of {last + 1} classes."
    return Indexed(numbered, labels, (note,))
