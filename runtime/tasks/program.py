"""Training graphs that are built only if they have to be run: what is asked of them is remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata, resources
from importlib.resources.abc import Traversable

from wootz.passes.ir.model import Model
from wootz.passes.training.memory import training_memory
from wootz.runtime.digest import digest
from wootz.runtime.outcome import Trained
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.recipe import Digests

COMPILES_WITH = ("onnx", "onnx-graphsurgeon", "numpy")


@dataclass(frozen=True)
class Program:
    """A training graph, and its digest, which is a part of keys.

    Building a graph of thousands of nodes takes seconds. It follows from its `sources` (digests, texts) and from the
    code that builds it. Under these the store remembers its digest and the memory that it takes, so that who looks for
    a result needn't build it. Where the code has changed the graph is built, and is found to be the same, or not.

    Where the graph is given what the full network computes, `teacher` computes that.
    """

    build: Callable[[], Model]
    sources: tuple[str, ...]
    what: str
    store: Store
    digests: Digests
    teacher: Program | None = None

    @cached_property
    def graph(self) -> Model:
        return self.build()

    @cached_property
    def digest(self) -> str:
        return self.remembered("program", lambda: self.digests.program(self.graph))

    def order_of_sums(self, device: Device, batch_size: int) -> str:
        """What `Device.order_of_sums` says of the graph."""
        threads = device.numerics_threads
        if threads == 1:
            return ""
        place = f"order of sums on {device.numerics}, {threads} threads, batches of {batch_size}"
        return self.remembered(place, lambda: device.order_of_sums(self.graph, batch_size))

    def memory(self, batch_size: int) -> int:
        """What one step of the graph takes, in bytes, on batches of `batch_size` images."""
        name = f"memory with batches of {batch_size}"
        return int(self.remembered(name, lambda: str(training_memory(self.graph, batch_size).total)))

    def remembered(self, name: str, find: Callable[[], str]) -> str:
        """What `find` says of the graph, under the `name` of that."""
        key = digest(*(part.encode() for part in (name, *self.sources, compiler_digest())))
        known = self.store.get_record(key)
        if known is not None and isinstance(known.get(name), str):
            return str(known[name])
        found = find()
        self.store.put(key, Trained({}, {name: found}), what=f"{name} of {self.what}", seconds=0.0)
        return found


@cache
def compiler_digest() -> str:
    """Of the code that makes training graphs."""
    sha = hashlib.sha256()
    for file in _files(resources.files("wootz.passes")):
        sha.update(file.read_bytes())
    for package in COMPILES_WITH:
        sha.update(f"{package} {metadata.version(package)}".encode())
    return sha.hexdigest()


def _files(folder: Traversable) -> list[Traversable]:
    """The source files below `folder`, in the order of their names."""
    found: list[Traversable] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _files(entry)
        elif entry.name.endswith((".py", ".onnxtxt")):
            found.append(entry)
    return found
