"""Which pieces of the networks of a subspace are pre-trained: the tuning blocks (paper, section 5).

The alphabet is (module, rate): a *symbol*. A symbol occurs once at most in a network, so the number of its occurrences
is the number of networks that contain it.

`paper` is the hierarchical identifier of the paper: Sequitur on the concatenated networks, then a walk over the
grammar, children first, with freq(v) the occurrences of v in the whole string:

    freq(v) <= 1                             dead end
    v is a terminal                          mark v
    a child of v is a dead end               dead end
    freq(v) == max(freq of its children)     mark v, unmark its children
    otherwise                                dead end

The marked nodes are the blocks. Which they are depends on the order of the networks, and a run of modules that always
occur together may come out in pieces.

`maximal` joins those pieces: neighbouring symbols are in one block when exactly the same networks contain them. That
is decided pair by pair, without a grammar and whatever the order of the networks.

`modules` joins nothing: each symbol is a block.

`none` has no blocks: every network begins with the teacher's remaining weights.

Whichever of the first three, every symbol that at least two networks contain lies in exactly one block, and a network
that contains a part of a block contains all of it, so that the blocks of a network never overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import groupby, pairwise
from typing import Literal

from wootz.passes.blocks.sequitur import Grammar, infer_grammar
from wootz.passes.plan.blocks import BlockPlan, Symbol, TuningBlock
from wootz.passes.plan.subspace import Configuration, Rate, Subspace

Method = Literal["paper", "maximal", "modules", "none"]

Network = tuple[int, ...]
"""A configuration, each of its symbols replaced by the symbol's number."""


def identify_blocks(
    subspace: Subspace, method: Method = "maximal", sources: Mapping[int, Sequence[int]] | None = None
) -> BlockPlan:
    """The tuning blocks of `subspace`, by lowest module and then first use, and each network's composite vector.

    `sources` are for networks that are plain chains of layers: for each module whose input loses channels when modules
    before it are pruned, the positions of those modules. Their rates are then a part of its symbols.

    A subspace of a single network has no blocks, since nothing is shared.
    """
    alphabet = Alphabet(sources or {})
    networks = [alphabet.spell(configuration) for configuration in subspace.configurations]
    runs = _RUNS[method](networks)
    letters = alphabet.letters
    block_of: dict[int, TuningBlock] = {}
    for run in runs:
        block = TuningBlock(tuple(letters[number] for number in run))
        block_of.update(dict.fromkeys(run, block))
    assert len(block_of) == sum(map(len, runs)), "a symbol is in several blocks"
    blocks = sorted(dict.fromkeys(block_of[n] for n in sorted(block_of)), key=lambda block: block.modules[0])
    composites = tuple(_composite_vector(network, block_of) for network in networks)
    uncovered = ((n, letters[s]) for n, network in enumerate(networks) for s in network if s not in block_of)
    return BlockPlan(tuple(blocks), composites, tuple(uncovered))


class Alphabet:
    """The symbols of a subspace, numbered in the order in which they are met; for `sources` see `identify_blocks`."""

    def __init__(self, sources: Mapping[int, Sequence[int]], is_open: bool | None = None):
        self._sources = sources
        self._is_open = bool(sources) if is_open is None else is_open
        self._numbers: dict[tuple[int, Rate, tuple[Rate, ...]], int] = {}

    def spell(self, configuration: Configuration) -> Network:
        """The numbers of a configuration's symbols."""
        numbers, sources = self._numbers, self._sources
        return tuple(
            numbers.setdefault(
                (module, rate, tuple(configuration[s] for s in sources[module]) if module in sources else ()),
                len(numbers),
            )
            for module, rate in enumerate(configuration)
        )

    @property
    def letters(self) -> list[Symbol]:
        """The symbols by their numbers."""
        return [Symbol(*letter, is_open=self._is_open) for letter in self._numbers]


def symbols(configuration: Configuration, sources: Mapping[int, Sequence[int]] | None = None) -> tuple[Symbol, ...]:
    """The configuration as a string of symbols; for `sources` see `identify_blocks`."""
    alphabet = Alphabet(sources or {})
    alphabet.spell(configuration)
    return tuple(alphabet.letters)


def _composite_vector(network: Network, block_of: dict[int, TuningBlock]) -> tuple[TuningBlock | None, ...]:
    found = (block_of.get(number) for number in network)
    return tuple(block for block, occurrences in groupby(found) for _ in (occurrences if block is None else range(1)))


def _maximal_runs(networks: Sequence[Network]) -> list[Network]:
    frequency = Counter(number for network in networks for number in network)
    together = Counter(pair for network in networks for pair in pairwise(network))
    successor = {a: b for (a, b), count in together.items() if count == frequency[a] == frequency[b]}
    runs = []
    for first in frequency.keys() - successor.values():
        run = [first]
        while run[-1] in successor:
            run.append(successor[run[-1]])
        if frequency[first] > 1:
            runs.append(tuple(run))
    return runs


def _single_symbols(networks: Sequence[Network]) -> list[Network]:
    frequency = Counter(number for network in networks for number in network)
    return [(number,) for number, count in frequency.items() if count > 1]


def _paper_runs(networks: Sequence[Network]) -> list[Network]:
    grammar = infer_grammar(_with_separators(networks))
    return [grammar.expand(-node) if node < 0 else (node,) for node in _marked_nodes(grammar)]


def _with_separators(networks: Sequence[Network]) -> list[int]:
    """The networks one after the other, each followed by a symbol that occurs nowhere else."""
    separator = 1 + max(number for network in networks for number in network)
    return [number for i, network in enumerate(networks) for number in (*network, separator + i)]


def _marked_nodes(grammar: Grammar) -> set[int]:
    """The marked nodes of the walk described above: terminals, and -k for rule k."""
    children = {-k: set(body) for k, body in enumerate(grammar.rules) if k > 0}
    frequency = _frequencies(grammar)
    marked: set[int] = set()
    dead_ends: set[int] = set()
    for node in _children_first(grammar):
        below = children.get(node, set())
        if frequency[node] <= 1 or below & dead_ends:
            dead_ends.add(node)
        elif not below:
            marked.add(node)
        elif frequency[node] == max(frequency[child] for child in below):
            marked.add(node)
            marked -= below
        else:
            dead_ends.add(node)
    return marked


def _frequencies(grammar: Grammar) -> Counter[int]:
    """How often each node occurs in the whole string."""
    frequency = Counter(grammar.rules[0])
    for node in reversed(_children_first(grammar)):
        if node < 0:
            for child in grammar.rules[-node]:
                frequency[child] += frequency[node]
    return frequency


def _children_first(grammar: Grammar) -> list[int]:
    """All nodes but the root, each after its children."""
    sorter = TopologicalSorter({-k: body for k, body in enumerate(grammar.rules) if k > 0})
    for node in grammar.rules[0]:
        sorter.add(node)
    return list(sorter.static_order())


_RUNS: dict[Method, Callable[[Sequence[Network]], list[Network]]] = {
    "paper": _paper_runs,
    "maximal": _maximal_runs,
    "modules": _single_symbols,
    "none": lambda networks: [],
}
