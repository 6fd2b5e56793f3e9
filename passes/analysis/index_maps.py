"""Index maps: integer arrays that name the atom of each element of a tensor, -1 where it belongs to none.

A map is broadcastable to its tensor's shape: it has extent 1 along every axis where nothing varies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

NO_ATOM = -1
LARGEST_MAP = 1 << 24
"""Maps with more elements aren't made."""
MOST_ROUNDS = 8
"""Atoms with more partners in a tie than that are rare: their pairs may be repeated."""


def empty_map(rank: int) -> np.ndarray:
    """The map of a tensor without atoms."""
    return np.full((1,) * rank, NO_ATOM, np.int32)


def along(atoms: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """The map of a tensor of that rank whose elements along `axis` belong to `atoms`."""
    shape = [1] * rank
    shape[axis] = len(atoms)
    return atoms.reshape(shape)


def varying_axes(labels: np.ndarray) -> tuple[int, ...]:
    return tuple(axis for axis, extent in enumerate(labels.shape) if extent > 1)


def first_along(labels: np.ndarray, axis: int) -> np.ndarray:
    """The map along `axis` at index 0 of every other axis: int[extent]."""
    return labels[tuple(slice(None) if a == axis else 0 for a in range(labels.ndim))]


def aligned(labels: np.ndarray, rank: int) -> np.ndarray:
    """The map with leading axes of extent 1, as broadcasting adds them."""
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def expanded(labels: np.ndarray, axis: int, extent: int) -> np.ndarray:
    """The map written out along one axis."""
    return labels if labels.shape[axis] == extent else np.repeat(labels, extent, axis)


def reshaped(labels: np.ndarray, source: Sequence[int], target: Sequence[int]) -> np.ndarray | None:
    """The map of a tensor of shape `source` reshaped to `target`; None where it gets too large or can't be.

    Runs of axes of equal size correspond: (N, C, H, W) -> (N, G, C/G, H*W) splits into N|N, C|G·C/G and H·W|HW. Only
    runs in which the map varies are written out.
    """
    runs = _corresponding_runs(source, target)
    if runs is None:
        return None
    wide = list(labels.shape)
    shape: list[int] = []
    for (start, stop), (first, last) in runs:
        if any(labels.shape[a] > 1 for a in range(start, stop)):
            wide[start:stop] = source[start:stop]
            shape += target[first:last]
        else:
            shape += [1] * (last - first)
    if int(np.prod(wide, dtype=np.int64)) > LARGEST_MAP:
        return None
    return narrowed(np.broadcast_to(labels, wide).reshape(shape))


def narrowed(labels: np.ndarray) -> np.ndarray:
    """The map with extent 1 along the axes where it is written out and nothing varies."""
    for axis in varying_axes(labels):
        first = labels[tuple(slice(0, 1) if a == axis else slice(None) for a in range(labels.ndim))]
        if (labels == first).all():
            labels = first
    return labels


def _corresponding_runs(
    source: Sequence[int], target: Sequence[int]
) -> list[tuple[tuple[int, int], tuple[int, int]]] | None:
    """The finest division of both shapes into runs of axes of equal size, as (start, stop) pairs."""
    if 0 in (*source, *target) or np.prod(source, dtype=np.int64) != np.prod(target, dtype=np.int64):
        return None
    runs = []
    i = j = 0
    while i < len(source) or j < len(target):
        start, first = i, j
        left = right = 1
        if i < len(source):
            left, i = source[i], i + 1
        if j < len(target):
            right, j = target[j], j + 1
        while left != right:
            if left < right:
                left, i = left * source[i], i + 1
            else:
                right, j = right * target[j], j + 1
        runs.append(((start, i), (first, j)))
    return runs


def distinct_pairs(count: int, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different ones of the pairs (a[i], b[i]) of atoms below `count`, where most are repeated."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    partner = np.full(count, NO_ATOM, np.int32)
    while a.size:
        partner.fill(NO_ATOM)
        partner[a] = b
        firsts = np.flatnonzero(partner >= 0).astype(np.int32)
        found.append((firsts, partner[firsts]))
        rest = partner[a] != b
        a, b = a[rest], b[rest]
        if a.size and len(found) == MOST_ROUNDS:
            found.append((a, b))
            break
    lefts, rights = zip(*found, strict=True) if found else ((a,), (b,))
    return np.concatenate(lefts), np.concatenate(rights)


def connected(count: int, ties: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """For each of `count` atoms the smallest atom that it is tied to, directly or not: int32[count]."""
    root = np.arange(count, dtype=np.int32)
    pairs = list(ties)
    if not pairs:
        return root
    left = np.concatenate([a.ravel() for a, _ in pairs])
    right = np.concatenate([b.ravel() for _, b in pairs])
    while True:
        smallest = np.minimum(root[left], root[right])
        before = root.copy()
        np.minimum.at(root, root[left], smallest)
        np.minimum.at(root, root[right], smallest)
        root = root[root]
        if np.array_equal(root, before):
            return root


def split(classes: np.ndarray, members: np.ndarray, marks: np.ndarray) -> None:
    """Gives `members` (positions in `classes`, none twice) new classes, in place: one for each old class and mark.

    Marks are integers from 0, one a member.
    """
    keys = classes[members].astype(np.int64) * (int(marks.max(initial=0)) + 1) + marks
    _, new = np.unique(keys, return_inverse=True)
    classes[members] = classes.max(initial=-1) + 1 + new
