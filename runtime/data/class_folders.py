"""Photographs in folders that are called as their classes: `CLASS/*`, or `train/CLASS/*` beside other splits. Without
classes they are `*`, or `train/*` beside other splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wootz.passes.errors import InputError
from wootz.runtime.data.class_index import ClassIndex, class_index
from wootz.runtime.data.listing import SPLIT_NAMES, Listing, Part
from wootz.runtime.data.photographs import SUFFIXES, UNREAD

MISNAMED = ("dev", "eval", "training", "testing")
"""What other programs call the folders of splits: without a word, the training images would be divided instead."""
SHOWN = 8


@dataclass(frozen=True)
class _Content:
    """What lies in a folder, in alphabetical order: folders, paths of photographs, and of files that are none."""

    folders: tuple[Path, ...]
    photographs: tuple[str, ...]
    others: tuple[str, ...]


def is_divided(root: Path) -> bool:
    """Whether there is a folder `train` with folders in it; one with photographs is a class, beside bus and car."""
    train = _split_folders(root).get("train", [])
    return bool(train) and bool(_content(train[0]).folders)


def has_class_folders(root: Path) -> bool:
    return any(_content(folder).photographs for folder in _content(root).folders)


def has_split_folders(root: Path) -> bool:
    """Whether the photographs lie in `train`, and perhaps in other splits, without classes."""
    held = {folder.name.lower() for folder in _content(root).folders if _content(folder).photographs}
    return "train" in held and held <= set(SPLIT_NAMES) and not is_divided(root)


def has_photographs(root: Path) -> bool:
    """Whether there are photographs in the folder itself."""
    return bool(_content(root).photographs)


def list_unlabelled(root: Path) -> Listing:
    """The photographs in `root/train` (and `val`, `test`), or in `root` itself: they have no classes."""
    folders = _splits(root) if has_split_folders(root) else {"train": root}
    parts = {name: Part(_content(folder).photographs) for name, folder in folders.items()}
    return Listing(root, (), parts["train"], parts.get("val"), parts.get("test"))


def list_class_folders(root: Path, classes: Path | None, outputs: int) -> Listing:
    """The photographs in `root/train/CLASS/*` (and `val`, `test`), or in `root/CLASS/*`.

    What editors and archives leave there is no class. Raises InputError for an empty class, a class that training
    lacks, and splits of other names.
    """
    splits = _splits(root) if is_divided(root) else {"train": root}
    found = {name: {f.name: _content(f) for f in _content(folder).folders} for name, folder in splits.items()}
    if not found["train"]:
        raise InputError("no class folders in it", splits["train"])
    index = class_index(found["train"], classes, root, outputs)
    for name, content in found["train"].items():
        if not content.photographs:
            raise InputError(
                f"no images in it: they lie in the folder of the class, as {', '.join(sorted(SUFFIXES))}",
                splits["train"] / name,
            )
    parts = {name: _part(splits[name], content, index) for name, content in found.items()}
    notes = _left_alone(splits.values(), [content for folders in found.values() for content in folders.values()])
    if beside := [f.name for f in _content(root).folders if is_divided(root) and f not in splits.values()]:
        notes += (f"Folders beside {splits['train'].name} are left alone: {', '.join(beside[:SHOWN])}.",)
    return Listing(root, index.names, parts["train"], parts.get("val"), parts.get("test"), notes)


def _split_folders(root: Path) -> dict[str, list[Path]]:
    """The folders that are called as a split, by its name."""
    named: dict[str, list[Path]] = {}
    for folder in _content(root).folders:
        if (name := SPLIT_NAMES.get(folder.name.lower())) is not None:
            named.setdefault(name, []).append(folder)
    return named


def _splits(root: Path) -> dict[str, Path]:
    named = _split_folders(root)
    if twice := [folders for folders in named.values() if len(folders) > 1]:
        raise InputError(f"{' and '.join(f.name for f in twice[0])} are both there: which is the split?", root)
    if misnamed := [folder.name for folder in _content(root).folders if folder.name.lower() in MISNAMED]:
        raise InputError(f"the folder {misnamed[0]} isn't read: the splits are train, val and test", root)
    return {name: folders[0] for name, folders in named.items()}


def _part(folder: Path, found: Mapping[str, _Content], index: ClassIndex) -> Part:
    index.check(found, folder)
    listed = sorted(found.items(), key=lambda item: index.labels[item[0]])
    photographs = [file for _, content in listed for file in content.photographs]
    counts = [len(content.photographs) for _, content in listed]
    return Part(photographs, np.repeat(np.array([index.labels[name] for name, _ in listed], np.int64), counts))


def _content(folder: Path) -> _Content:
    folders: list[str] = []
    photographs: list[str] = []
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith((".", "__MACOSX")):
                is_photograph = os.path.splitext(entry.name)[1].lower() in SUFFIXES
                kind = folders if entry.is_dir() else photographs if is_photograph else others
                kind.append(entry.path)
    return _Content(tuple(map(Path, sorted(folders))), tuple(sorted(photographs)), tuple(sorted(others)))


def _left_alone(splits: Iterable[Path], classes: Iterable[_Content]) -> tuple[str, ...]:
    """What lies where photographs do, and isn't read."""
    others = (Path(file) for content in classes for file in content.others)
    suffixes = Counter(file.suffix or file.name for file in others)
    notes = []
    unread = {suffix: suffixes.pop(suffix) for suffix in list(suffixes) if suffix.lower() in UNREAD}
    if unread:
        counted = ", ".join(f"{count:,} {suffix}" for suffix, count in unread.items())
        notes.append(f"Photographs in formats that aren't read are left out: {counted}. Convert them to JPEG or PNG.")
    if suffixes:
        counted = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes.most_common(SHOWN))
        notes.append(f"Files in class folders that are no photographs are left alone: {counted}.")
    for folder in splits:
        if beside := _content(folder).photographs:
            notes.append(f"Photographs beside the class folders are left alone: {len(beside):,}, as {beside[0]}.")
    return tuple(notes)
