"""What layers and modules are called: paths like `layer1.0.conv1`, whichever program wrote the graph."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from wootz.passes.ir.model import Node, is_constant

SEPARATORS = "./_-"


def layer_name(node: Node) -> str:
    """The layer that a convolution belongs to: the name of its weight without `.weight`, or the node's name."""
    weight = node.inputs[1]
    if is_constant(weight) and weight.name.endswith(".weight"):
        return weight.name.removesuffix(".weight")
    return node.name


def layer_path(node: Node) -> tuple[str, ...]:
    """The parts of a layer's name.

    PyTorch's older exporter calls nodes after the scopes around them, and a scope in a list of modules after the list:
    `/layer1/layer1.0/conv1/Conv` is `layer1.0.conv1`, which its newer exporter calls the weight.
    """
    name = layer_name(node)
    if not name.startswith("/"):
        return tuple(part for part in re.split(r"[/.]", name) if part)
    path: list[str] = []
    for scope in name.strip("/").split("/")[:-1]:
        parts = scope.split(".")
        repeats = len(parts) > 1 and path[-(len(parts) - 1) :] == parts[:-1]
        path += parts[-1:] if repeats else parts
    return tuple(path)


def prefix(node: Node) -> str:
    """What the names of the layers of one module begin with: `res2a` of `res2a_branch2b`, `inception_3a` of
    `inception_3a/1x1`; empty where the name has no such beginning."""
    name = layer_name(node)
    if name.startswith("/"):
        name = ".".join(layer_path(node))
    if branch := re.match(r"(.+?)_?branch", name):
        return branch[1].rstrip(SEPARATORS)
    return name.rpartition("/")[0].rstrip(SEPARATORS)


def titles(candidates: Sequence[Iterable[Sequence[Node]]]) -> tuple[str, ...]:
    """A name of its own for each module.

    `candidates` has groups of layers of each module: it is called after the path that all layers of the first group
    share, if no other module is called so, else after that of the second, and so on. Failing all, it is called after
    its position: `module1`, `module2`, …
    """
    paths = [[_shared_path(group) for group in groups] for groups in candidates]
    found = [""] * len(paths)
    for level in range(max(map(len, paths), default=0)):
        offered = {i: path[level] for i, path in enumerate(paths) if not found[i] and level < len(path)}
        taken = Counter([*offered.values(), *found])
        for i, title in offered.items():
            if title and taken[title] == 1:
                found[i] = title
    for i in (i for i, title in enumerate(found) if not title):
        found[i] = next(name for name in _numbered(i + 1) if name not in found)
    return tuple(found)


def _numbered(position: int) -> Iterator[str]:
    yield f"module{position}"
    yield from (f"module{position}-{i}" for i in itertools.count(2))


def _shared_path(layers: Sequence[Node]) -> str:
    """The path that the names of layers share; the layer's own name is no part of it."""
    paths = [layer_path(layer)[:-1] for layer in layers]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)
