"""Prints the records of an LMDB database. A process of its own does it: damage makes the library read memory that isn't
there, which ends the process.

    python -P -m wootz.runtime.data.lmdb_records FOLDER

Each record as two uint64 (little-endian) for the lengths of key and value, the key, the value; what is wrong on
standard error.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

LENGTHS = struct.Struct("<QQ")
RECORD_HEADER = 8
"""Bytes that LMDB stores with each record, at least."""


def print_records(folder: str) -> str:
    """Prints all records. Gives what is wrong with the database, or nothing."""
    import lmdb

    file = Path(folder, "data.mdb")
    size = left = file.stat().st_size if file.is_file() else 0
    try:
        with (
            lmdb.open(folder, readonly=True, lock=False) as environment,
            environment.begin(buffers=True) as transaction,
            transaction.cursor() as cursor,
        ):
            pages = environment.info()["last_pgno"] + 1
            if pages * environment.stat()["psize"] > size:
                return f"{pages} pages in a file of {size} bytes: cut off"
            for key, value in cursor:
                left -= RECORD_HEADER + len(key) + len(value)
                if left < 0:
                    return "more records than its file can hold"
                for piece in (LENGTHS.pack(len(key), len(value)), key, value):
                    sys.stdout.buffer.write(piece)
    except lmdb.Error as error:
        return str(error)
    return ""


if __name__ == "__main__":
    fault = print_records(sys.argv[1])
    sys.stdout.buffer.flush()
    sys.exit(fault or 0)
