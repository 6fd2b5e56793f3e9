"""Lists of photographs: a path, a label and perhaps a split in each line, as CSV or as JSON."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.errors import InputError, reading
from wootz.runtime.data.class_index import Indexed, indexed
from wootz.runtime.data.listing import SPLIT_NAMES, Listing, parts_of
from wootz.runtime.data.photographs import SUFFIXES

PATH_COLUMNS = ("path", "file", "file_name", "filename", "filepath", "image")
LABEL_COLUMNS = ("label", "class_name", "class", "category")
SPLIT_COLUMNS = ("split", "subset")
HEADERLESS = ("path", "label", "split")
WHOLE_NUMBER = re.compile(r"(\d+)(?:\.0*)?")


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str | int | None
    split: str


def list_manifest(file: Path, classes: Path | None, outputs: int) -> Listing:
    """The photographs that a manifest lists, whose paths are relative to its folder.

    CSV has a header with `path`, `label` and perhaps `split` (or what `PATH_COLUMNS` and the like say), or lines of
    these two or three alone; JSON a list of objects, or an object a line. Labels are names, or numbers of outputs where
    all are; there may be none at all. What has no split is for training. Raises InputError for what is none of that,
    and photographs that are listed twice.
    """
    with reading(file, "a list of photographs in UTF-8"):
        rows = list(MANIFESTS[file.suffix.lower()](file))
    if not rows:
        raise InputError("it lists no photograph", file)
    seen: set[str] = set()
    for row in rows:
        if row.path in seen:
            raise InputError(f"{row.path!r} is listed twice", file, row.line)
        seen.add(row.path)
    found = _indexed(rows, file, classes, outputs)
    folder = os.path.abspath(file.parent)
    photographs = [os.path.normpath(os.path.join(folder, row.path)) for row in rows]
    labels = None if found is None else found.labels
    train, validation, test = parts_of(photographs, labels, [row.split for row in rows])
    if not len(train):
        raise InputError("it lists no photograph for training (split: train)", file)
    if found is None:
        return Listing(file.parent, (), train, validation, test, (f"{file.name} has no {LABEL_COLUMNS[0]}.",))
    return Listing(file.parent, found.names, train, validation, test, (*_mixture(rows), *found.notes))


def _indexed(rows: Sequence[_Row], file: Path, classes: Path | None, outputs: int) -> Indexed | None:
    """What the labels mean; None where no photograph has one."""
    if all(row.label is None for row in rows):
        return None
    if missing := next((row for row in rows if row.label is None), None):
        raise InputError(f"no {LABEL_COLUMNS[0]}, while others have one", file, missing.line)
    return indexed(_labels(rows), None, classes, file, outputs)


def _labels(rows: Sequence[_Row]) -> Sequence[str] | np.ndarray:
    """Names; or numbers, where all are."""
    numbers = [_whole_number(row.label) for row in rows]
    if None not in numbers:
        return np.array([min(number, np.iinfo(np.int64).max) for number in numbers if number is not None])
    return [str(row.label) for row in rows]


def _whole_number(label: str | int | None) -> int | None:
    """Also of `1.0`, as tables write numbers in which some cell was empty."""
    if isinstance(label, int):
        return label
    match = WHOLE_NUMBER.fullmatch(label or "")
    return int(match[1]) if match else None


def _mixture(rows: Sequence[_Row]) -> tuple[str, ...]:
    """What is told where some labels are numbers, others names."""
    kinds: dict[bool, str | int | None] = {}
    for row in rows:
        kinds.setdefault(_whole_number(row.label) is None, row.label)
    if len(kinds) < 2:
        return ()
    classes = len({str(row.label) for row in rows})
    return (
        f"Some labels are numbers ({kinds[False]}), others names ({kinds[True]}): all are taken as names, of {classes} "
        f"classes.",
    )


def _read_csv(file: Path, delimiter: str = ",") -> Iterator[_Row]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header: Sequence[str] | None = None
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            if header is None:
                is_photograph = os.path.splitext(cells[0])[1].lower() in SUFFIXES
                header = HEADERLESS[: len(cells)] if is_photograph else [cell.strip().lower() for cell in cells]
                if not is_photograph:
                    continue
            if len(cells) != len(header):
                raise InputError(f"{len(cells)} values under {len(header)} columns", file, reader.line_num)
            yield _row(dict(zip(header, map(str.strip, cells), strict=True)), file, reader.line_num)


def _read_tsv(file: Path) -> Iterator[_Row]:
    return _read_csv(file, "\t")


def _read_json_lines(file: Path) -> Iterator[_Row]:
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                said = json.loads(line)
            except ValueError as error:
                raise InputError(f"no JSON: {error}", file, number) from error
            if not isinstance(said, dict):
                raise InputError('no object as {"path": …, "label": …}', file, number)
            yield _row(said, file, number)


def _read_json(file: Path) -> Iterator[_Row]:
    """A list of objects; or an object a line, which others than `.jsonl` hold, too."""
    text = file.read_text(encoding="utf-8-sig")
    if not text.lstrip().startswith("["):
        yield from _read_json_lines(file)
        return
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise InputError(f"no JSON: {error}", file) from error
    for number, said in enumerate(listed, start=1):
        if not isinstance(said, dict):
            raise InputError(f'entry {number} is no object as {{"path": …, "label": …}}', file)
        yield _row(said, file, number)


MANIFESTS: Mapping[str, Callable[[Path], Iterator[_Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}


def _row(values: Mapping[str, Any], file: Path, line: int) -> _Row:
    def value(names: Sequence[str], absent: Any = None) -> Any:
        name = next((name for name in names if name in values), None)
        if name is None and absent is None:
            raise InputError(f"no {names[0]} (columns: {', '.join(map(str, values))})", file, line)
        return absent if name is None else values[name]

    path, split = value(PATH_COLUMNS), value(SPLIT_COLUMNS, "") or "train"
    has_label = any(name in values for name in LABEL_COLUMNS)
    label = value(LABEL_COLUMNS) if has_label else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(f"{path!r} is no path", file, line)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if has_label and (type(label) not in (str, int) or label == ""):
        raise InputError(f"{label!r} is no label: a name, or a number", file, line)
    if not isinstance(split, str) or split.lower() not in SPLIT_NAMES:
        raise InputError(f"the split {split!r} is none of {', '.join(SPLIT_NAMES)}", file, line)
    return _Row(line, path, label, SPLIT_NAMES[split.lower()])
