"""Entries in one file: a tar archive, compressed if its name ends in .gz, whose members are the entries' files."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from wootz.passes.errors import InputError, WootzError, reading
from wootz.runtime.store.durable import make_folder, replacing, share_like_folder
from wootz.runtime.store.entry import OUTCOMES, Damaged, check_arrays, read_entry
from wootz.runtime.store.layout import key_of
from wootz.runtime.store.location import writing
from wootz.runtime.store.store import Store

SUFFIXES = (".tar", ".tar.gz", ".tgz")
GZIP_MAGIC = b"\x1f\x8b"
MOST_MEMBERS = 1_000_000
PIECE = 2**20
"""Bytes that are read at once; a header of an archive that asks for more is none that we wrote."""


@dataclass(frozen=True)
class Imported:
    """How many entries of an archive were new, known already, and damaged (these are not taken)."""

    new: int
    known: int
    damaged: int


def export_entries(store: Store, file: Path, keys: Sequence[str]) -> int:
    """Writes the entries of `keys` to `file`, all or nothing, and gives its size in bytes.

    Equal entries give equal archives. Raises WootzError for a key that has no whole entry, and for other suffixes.
    """
    if not file.name.endswith(SUFFIXES):
        raise WootzError(f"{file}: an archive is a {', '.join(SUFFIXES)}")
    for key in keys:
        if store.look_into(store.layout.entry(key), key, OUTCOMES, check_arrays) is None:
            raise WootzError(f"{store.folder} has no entry {key}: wootz store ls shows which there are")
    with (
        writing(file, "choose another file"),
        replacing(file) as (content, _),
        _compressing(content, file) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for entry in map(store.layout.entry, sorted(keys)):
            with entry.open("rb") as source:
                member = tarfile.TarInfo(entry.name)
                member.size = os.fstat(source.fileno()).st_size
                archive.addfile(member, source)
    return file.stat().st_size


def import_entries(store: Store, file: Path) -> Imported:
    """Takes the entries that an archive of `export_entries` holds. Each is verified before it is one of the store's.

    All members are looked at before the first is taken. Raises WootzError for an archive of anything but entries, or of
    more than the store's limit.
    """
    with reading(file, "an archive of entries"), file.open("rb") as content:
        is_compressed = content.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        content.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=content)) if is_compressed else content
        with tarfile.open(fileobj=cast(BinaryIO, _Cautious(stream)), mode="r:") as archive:
            members = _members(archive, file, store.limit)
            taken = [_take(store, archive, member) for member in members]
    store.make_room()
    return Imported(taken.count("new"), taken.count("known"), taken.count("damaged"))


@contextmanager
def _compressing(content: BinaryIO, file: Path) -> Iterator[BinaryIO]:
    """`content`, or what compresses into it where the name of `file` says so."""
    if file.suffix == ".tar":
        yield content
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=content, mtime=0) as compressed:
        yield cast(BinaryIO, compressed)


class _Cautious:
    """A stream for `tarfile`, which reads a header as a whole into memory, whatever length it claims."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PIECE:
            raise ValueError(f"a header of {size} bytes")
        return self._stream.read(size)


def _take(store: Store, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    entry = store.layout.entry(str(key_of(Path(member.name))))
    if store.look_into(entry, entry.stem, OUTCOMES, check_arrays) is not None:
        return "known"
    source = archive.extractfile(member)
    assert source is not None
    with writing(entry):
        make_folder(entry.parent)
        try:
            with replacing(entry) as (content, temporary):
                share_like_folder(temporary)
                shutil.copyfileobj(source, content, PIECE)
                content.flush()
                read_entry(temporary, entry.stem, OUTCOMES, check_arrays)
        except Damaged:
            return "damaged"
    return "new"


def _members(archive: tarfile.TarFile, file: Path, limit: int) -> list[tarfile.TarInfo]:
    """All members, if each is the file of an entry: nothing else is ever unpacked."""
    members: list[tarfile.TarInfo] = []
    size = 0
    for member in archive:
        path = Path(member.name)
        if path.name != member.name or key_of(path) is None or not member.isreg() or member.issparse():
            raise InputError(f"not an archive of entries, it holds {member.name[:100]!r}", file)
        members.append(member)
        size += member.size
        if size > limit or len(members) > MOST_MEMBERS:
            raise InputError(f"holds more than the store's limit of {limit:,} bytes: raise WOOTZ_STORE_LIMIT", file)
    return members
