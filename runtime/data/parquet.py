"""Photographs in Parquet files, as the library `datasets` writes image folders."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wootz.passes.errors import InputError, WootzError, reading
from wootz.runtime.data.class_index import indexed
from wootz.runtime.data.listing import SPLIT_NAMES, Cell, Listing, Part, Photograph, parts_of

PARQUET = ".parquet"
A_TABLE = "a Parquet file of images"
LABEL_COLUMNS = ("label", "labels", "fine_label")
"""The first that is there; other ones hold other labels, for other tasks."""
OTHER_LABELS = ("coarse_label",)
SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)


def parquet_files(folder: Path) -> list[Path]:
    """Those in `folder`, in its folder `data`, and in folders that are called as splits."""
    inside = [folder, folder / "data", *(folder / name for name in SPLIT_NAMES)]
    return [file for place in inside for file in sorted(place.glob(f"*{PARQUET}"))]


def list_parquet(location: Path, files: Sequence[Path], classes: Path | None, outputs: int) -> Listing:
    """The photographs in the rows of Parquet files, which have their splits in their names (`train-00000-of-00002`), or
    in that of their folder.

    The images are a column of structures with `bytes`; labels the column `label`, `labels` or `fine_label`, names or
    numbers, whose names are in the file's metadata; without such a column there are none. Raises InputError for
    anything else, and WootzError without the package pyarrow.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise WootzError("Parquet files need the package pyarrow: install wootz[parquet]")
    photographs: list[Photograph] = []
    splits: list[str] = []
    labels: list[Any] = []
    names: list[str] | None = None
    others: dict[str, str] = {}
    for file in files:
        with reading(file, A_TABLE):
            table = _open(file)
            label = _label_column(table.schema_arrow)
            if label is not None:
                others |= dict.fromkeys(_other_labels(table.schema_arrow, label), label)
                names = names or _class_names(table.schema_arrow, label)
            _image_column(table.schema_arrow, file)
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                photographs += [Cell(str(file), group, row) for row in range(rows)]
                splits += [_split(file)] * rows
                if label is not None:
                    labels += table.read_row_group(group, columns=[label])[label].to_pylist()
    if not photographs:
        raise InputError("there are no rows", location)
    if not labels:
        note = f"{location.name} has no column {LABEL_COLUMNS[0]}."
        return Listing(location, (), *_for_training(parts_of(photographs, None, splits), location), (note,))
    if len(labels) < len(photographs):
        raise InputError(f"no column {LABEL_COLUMNS[0]} in some files, while others have one", location)
    kinds = {type(label) for label in labels}
    if kinds not in ({str}, {int}):
        raise InputError("labels are neither all names nor all numbers", location)
    numbered = np.array(labels) if kinds == {int} else [str(label) for label in labels]
    found = indexed(numbered, names, classes, location, outputs)
    train, validation, test = _for_training(parts_of(photographs, found.labels, splits), location)
    told = [f"The labels are the column {label}; {other} is left alone." for other, label in others.items()]
    return Listing(location, found.names, train, validation, test, (*told, *found.notes))


def _for_training(
    parts: tuple[Part, Part | None, Part | None], location: Path
) -> tuple[Part, Part | None, Part | None]:
    if not len(parts[0]):
        raise InputError("no file is for training: name one train-….parquet", location)
    return parts


def read_contents(file: str, group: int) -> list[bytes]:
    """The photographs of a row group, as files: empty where there is none."""
    with reading(file, A_TABLE):
        table = _open(Path(file))
        column = _image_column(table.schema_arrow, Path(file))
        cells = table.read_row_group(group, columns=[column])[column].to_pylist()
        contents = [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]
        return [content or b"" for content in contents]


def _open(file: Path) -> Any:
    from pyarrow.parquet import ParquetFile

    return ParquetFile(file)


def _split(file: Path) -> str:
    found = SPLIT.match(file.name) or SPLIT.fullmatch(file.parent.name)
    return SPLIT_NAMES[found[1].lower()] if found else "train"


def _image_column(schema: Any, file: Path) -> str:
    """A structure with `bytes`, or a column of bytes."""
    from pyarrow import types

    for field in schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    for field in schema:
        if types.is_binary(field.type) or types.is_large_binary(field.type):
            return str(field.name)
    raise InputError(f"no column has images (columns: {', '.join(schema.names)})", file)


def _label_column(schema: Any) -> str | None:
    return next((name for name in LABEL_COLUMNS if name in schema.names), None)


def _other_labels(schema: Any, label: str) -> list[str]:
    return [name for name in (*LABEL_COLUMNS, *OTHER_LABELS) if name in schema.names and name != label]


def _class_names(schema: Any, label: str) -> list[str] | None:
    """What the library `datasets` calls the numbers of a column."""
    said = (schema.metadata or {}).get(b"huggingface")
    feature = json.loads(said)["info"]["features"].get(label, {}) if said else {}
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else None
