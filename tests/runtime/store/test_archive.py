"""Entries that travel in one file, and archives that mean ill."""

import gzip
import hashlib
import io
import os
import tarfile
import tracemalloc

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.store import Store
from wootz.runtime.store.archive import PIECE, Imported, export_entries, import_entries
from wootz.runtime.store.entry import encode

KEY, OTHER = "ab" * 16, "cd" * 32


@pytest.fixture
def other(tmp_path):
    return Store.open(tmp_path / "other", limit=10**7)


def fill(store):
    store.put(KEY, Trained({"w": np.arange(1000.0)}, {"quality": 1 / 3}), what="block 3", seconds=12.5)
    store.put(OTHER, Failed("diverged"), what="network 5", seconds=2)
    return [KEY, OTHER]


def files(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def archive_of(file, *members, compressed=False):
    """An archive of (tarfile.TarInfo or name, content)."""
    with tarfile.open(file, "w:gz" if compressed else "w") as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content) if content else None)
    return file


@pytest.mark.parametrize("name", ["kept.tar", "kept.tar.gz", "kept.tgz"])
def test_what_was_exported_is_imported(store, other, tmp_path, name):
    file = tmp_path / name
    assert export_entries(store, file, fill(store)) == file.stat().st_size
    assert import_entries(other, file) == Imported(new=2, known=0, damaged=0)
    np.testing.assert_array_equal(other.get(KEY).weights["w"], np.arange(1000.0))
    assert other.get(OTHER) == Failed("diverged")
    assert other.entry(KEY) == store.entry(KEY)
    assert import_entries(other, file) == Imported(new=0, known=2, damaged=0)


@pytest.mark.parametrize("name", ["kept.tar", "kept.tar.gz"])
def test_equal_entries_are_equal_archives(store, other, tmp_path, name):
    for number, one in enumerate((store, other)):
        (tmp_path / str(number)).mkdir()
        keys = fill(one)
        os.utime(one.layout.entry(KEY), (number, number))
        export_entries(one, tmp_path / str(number) / name, keys[:: 1 - 2 * number])
    assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_any_tool_reads_an_archive(store, tmp_path):
    export_entries(store, tmp_path / "kept.tar", fill(store))
    with tarfile.open(tmp_path / "kept.tar") as archive:
        assert archive.getnames() == [f"{KEY}.entry", f"{OTHER}.entry"]


def test_an_archive_is_written_whole_or_not_at_all(store, tmp_path):
    fill(store)
    (tmp_path / "kept.tar").write_text("before")
    with pytest.raises(WootzError, match=f"has no entry {'0' * 32}"):
        export_entries(store, tmp_path / "kept.tar", [KEY, "0" * 32])
    with pytest.raises(WootzError, match=r"kept\.zip: an archive is a \.tar, \.tar\.gz"):
        export_entries(store, tmp_path / "kept.zip", [KEY])
    with pytest.raises(WootzError, match=r"none/kept\.tar: can't be written .*choose another file"):
        export_entries(store, tmp_path / "none" / "kept.tar", [KEY])
    assert (tmp_path / "kept.tar").read_text() == "before"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["kept.tar", "store"]


def test_damaged_entries_are_not_exported(store, tmp_path):
    keys = fill(store)
    file = store.layout.entry(KEY)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WootzError, match="has no entry"):
        export_entries(store, tmp_path / "kept.tar", keys)


def test_a_damaged_entry_is_not_taken_but_the_others_are(store, other, tmp_path):
    fill(store)
    whole, failed = (store.layout.entry(key).read_bytes() for key in (KEY, OTHER))
    altered = whole[:-1] + bytes([whole[-1] ^ 1])
    file = archive_of(tmp_path / "a.tar", (f"{KEY}.entry", altered), (f"{OTHER}.entry", failed))
    assert import_entries(other, file) == Imported(new=1, known=0, damaged=1)
    assert files(other.folder) == [f"entries/cd/{OTHER}.entry", "format"]


def test_an_entry_under_another_key_is_not_taken(store, other, tmp_path):
    fill(store)
    content = store.layout.entry(KEY).read_bytes()
    assert import_entries(other, archive_of(tmp_path / "a.tar", (f"{'0' * 32}.entry", content))).damaged == 1
    assert files(other.folder) == ["format"]


def test_a_damaged_entry_of_the_store_is_replaced(store, other, tmp_path):
    export_entries(store, tmp_path / "kept.tar", fill(store))
    fill(other)
    other.layout.entry(KEY).write_bytes(b"damaged")
    assert import_entries(other, tmp_path / "kept.tar") == Imported(new=1, known=1, damaged=0)
    assert other.get(KEY).record == {"quality": 1 / 3}


def refusal(store, file):
    """What is said of an archive that is refused; empty if it isn't."""
    try:
        import_entries(store, file)
    except WootzError as error:
        return str(error)
    return ""


def link(kind, target):
    info = tarfile.TarInfo(f"{OTHER}.entry")
    info.type, info.linkname = kind, target
    return info


def sized(size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(f"{OTHER}.entry")
    info.size, info.type = size, kind
    return info


@pytest.mark.parametrize(
    "member",
    [
        f"/tmp/{OTHER}.entry",
        f"../{OTHER}.entry",
        f"entries/../../{OTHER}.entry",
        f"./{OTHER}.entry",
        f"{OTHER}.ENTRY",
        f"{OTHER.upper()}.entry",
        f"{OTHER}.entry\n",
        "format",
        "..",
        ".entry",
        "n" * 5000,
        link(tarfile.SYMTYPE, "/etc/passwd"),
        link(tarfile.LNKTYPE, "/etc/passwd"),
        link(tarfile.FIFOTYPE, ""),
        link(tarfile.CHRTYPE, ""),
        link(tarfile.DIRTYPE, ""),
        sized(10**15),
        sized(10**7),
        sized(0, tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda member: member[:20] if isinstance(member, str) else f"{member.type.decode()}-{member.size}",
)
@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_of_anything_else_is_refused_as_a_whole(store, other, tmp_path, member, compressed):
    fill(store)
    content = store.layout.entry(KEY).read_bytes()
    file = archive_of(tmp_path / "a.tar", (f"{KEY}.entry", content), (member, b""), compressed=compressed)
    with pytest.raises(WootzError, match=r"a\.tar: "):
        import_entries(other, file)
    assert files(other.folder) == ["format"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.tar", "other", "store"]


def test_an_archive_larger_than_the_store_may_be_is_refused(store, tmp_path):
    export_entries(store, tmp_path / "kept.tar", fill(store))
    size = sum(store.layout.entry(key).stat().st_size for key in (KEY, OTHER))
    small, large_enough = (Store.open(tmp_path / str(limit), limit=limit) for limit in (size - 1, size))
    with pytest.raises(WootzError, match=r"kept\.tar: holds more than the store's limit of .* raise WOOTZ_STORE_LIMIT"):
        import_entries(small, tmp_path / "kept.tar")
    assert files(small.folder) == ["format"]
    assert import_entries(large_enough, tmp_path / "kept.tar").new == 2


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_claims_to_be_huge_takes_no_memory(other, tmp_path, kind):
    """Compressed, it is a small file."""
    size = 300 * PIECE
    with gzip.open(tmp_path / "a.tar", "wb") as stream:
        stream.write(sized(size, kind).tobuf(tarfile.GNU_FORMAT))
        for _ in range(300):
            stream.write(b"\0" * PIECE)
    tracemalloc.start()
    with pytest.raises(WootzError, match="a header of"):
        import_entries(other, tmp_path / "a.tar")
    assert tracemalloc.get_traced_memory()[1] < 20 * PIECE
    tracemalloc.stop()


def test_an_entry_that_claims_to_be_huge_takes_no_memory(store, other, tmp_path):
    """Its header is right by its own checksum, and there are no such arrays behind it."""
    pieces = encode(KEY, "trained", "", 0.0, {}, {"w": np.zeros(1)})
    line = bytes(pieces[2]).replace(b"[1]]", b"[1000000000000]]")
    content = b"".join([bytes(pieces[0]), hashlib.sha256(line).hexdigest().encode() + b"\n", line, b"\0" * 8])
    file = archive_of(tmp_path / "a.tar", (f"{KEY}.entry", content))
    assert import_entries(other, file) == Imported(new=0, known=0, damaged=1)


@pytest.mark.parametrize("header", [
    b"[]", b"{}", b"null", b'{"key": 1}', b"[" * 100_000, b"\xff",
])  # fmt: skip
def test_headers_of_another_shape_are_damaged(other, header, tmp_path):
    line = header + b"\n"
    content = b"wootz entry 1\n" + hashlib.sha256(line).hexdigest().encode() + b"\n" + line
    assert import_entries(other, archive_of(tmp_path / "a.tar", (f"{KEY}.entry", content))).damaged == 1


def test_any_damage_to_an_archive_is_one_line_or_noticed_in_its_entries(store, other, tmp_path):
    """Truncated anywhere, or with bytes replaced, compressed or not: nothing wrong gets into the store."""
    generator = np.random.default_rng(0)
    keys = fill(store)
    for name in ("kept.tar", "kept.tar.gz"):
        file = tmp_path / name
        export_entries(store, file, keys)
        content = file.read_bytes()
        for number in range(60):
            damaged = bytearray(content)
            if number % 3 == 0:
                del damaged[generator.integers(len(damaged)) :]
            for place in generator.integers(len(damaged) or 1, size=number % 3):
                damaged[place] = generator.integers(256)
            file.write_bytes(damaged)
            said = refusal(other, file)
            assert said == "" or str(file) in said
            for key in keys:
                found = other.get(key)
                assert found is None or other.entry(key) == store.entry(key)
                other.layout.entry(key).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "content", [b"", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0", b"PK\x03\x04", b"\0" * 10240, b"x" * 2000]
)
def test_what_is_no_archive_is_refused_or_empty(other, tmp_path, content):
    file = tmp_path / "a.tar"
    file.write_bytes(content)
    said = refusal(other, file)
    assert said.startswith(f"{file}: ") or (said == "" and set(content) == {0})
    assert files(other.folder) == ["format"]


def test_a_missing_archive_is_named(other, tmp_path):
    with pytest.raises(WootzError, match=r"a\.tar: can't be read: No such file"):
        import_entries(other, tmp_path / "a.tar")
