"""Sequitur: against a plain Python version of it, on known grammars, and by its two properties."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.blocks.sequitur import Grammar, infer_grammar
from wootz.passes.errors import WootzError


class Node:
    """A symbol in the body of a rule; `value` is a terminal, a Rule, or None in the guard that closes the body."""

    def __init__(self, value: int | Rule | None, owner: Rule | None = None):
        self.value, self.owner = value, owner
        self.previous = self.next = self
        self.removed = False

    def begins_digram(self) -> bool:
        return not self.removed and self.value is not None and self.next.value is not None

    def digram(self) -> tuple[object, object]:
        return self.value, self.next.value


class Rule:
    def __init__(self) -> None:
        self.guard = Node(None, self)
        self.uses = 0


class PlainSequitur:
    """The algorithm with objects and a dictionary in place of pools and a hash table."""

    def __init__(self) -> None:
        self.root = Rule()
        self.digrams: dict[tuple[object, object], Node] = {}
        self.unchecked: list[Node] = []

    def append(self, terminal: int) -> None:
        node, guard = Node(terminal), self.root.guard
        self.unchecked.append(guard.previous)
        link(guard.previous, node)
        link(node, guard)
        while self.unchecked:
            self.check(self.unchecked.pop())

    def check(self, node: Node) -> None:
        if not node.begins_digram():
            return
        other = self.digrams.setdefault(node.digram(), node)
        if other is not node and other.next is not node and node.next is not other:
            self.merge(other, node)

    def merge(self, first: Node, second: Node) -> None:
        rule = first.previous.owner if first.previous is first.next.next else None
        if rule is None:
            rule = Rule()
            left, right = Node(first.value), Node(first.next.value)
            for a, b in pairwise([rule.guard, left, right, rule.guard]):
                link(a, b)
            for node in (left, right):
                count_use(node, +1)
            self.digrams[left.digram()] = left
            self.replace(first, rule)
        self.replace(second, rule)
        head = rule.guard.next
        if isinstance(head.value, Rule) and head.value.uses == 1:
            self.inline_only_use(head)

    def replace(self, first: Node, rule: Rule) -> None:
        second, left, right = first.next, first.previous, first.next.next
        self.forget(left)
        self.forget(second)
        for node in (first, second):
            count_use(node, -1)
            node.removed = True
        use = Node(rule)
        count_use(use, +1)
        link(left, use)
        link(use, right)
        self.unchecked += [use, left]

    def inline_only_use(self, use: Node) -> None:
        left, right, guard = use.previous, use.next, use.value.guard
        self.forget(left)
        self.forget(use)
        use.removed = guard.removed = True
        tail = guard.previous
        link(left, guard.next)
        link(tail, right)
        self.unchecked += [tail, left]

    def forget(self, node: Node) -> None:
        if node.begins_digram() and self.digrams.get(node.digram()) is node:
            del self.digrams[node.digram()]
            if node.value == node.next.value == node.next.next.value:
                self.unchecked.append(node.next)

    def grammar(self) -> Grammar:
        numbers, rules, bodies = {self.root: 0}, [self.root], []
        for rule in rules:
            body, node = [], rule.guard.next
            while node.value is not None:
                if isinstance(node.value, Rule):
                    if node.value not in numbers:
                        numbers[node.value] = len(rules)
                        rules.append(node.value)
                    body.append(-numbers[node.value])
                else:
                    body.append(node.value)
                node = node.next
            bodies.append(tuple(body))
        return Grammar(tuple(bodies))


def link(left: Node, right: Node) -> None:
    left.next, right.previous = right, left


def count_use(node: Node, change: int) -> None:
    if isinstance(node.value, Rule):
        node.value.uses += change


def plain_grammar(symbols: list[int]) -> Grammar:
    sequitur = PlainSequitur()
    for symbol in symbols:
        sequitur.append(symbol)
    return sequitur.grammar()


def fibonacci_word(steps: int) -> list[int]:
    shorter, longer = [1], [0]
    for _ in range(steps):
        shorter, longer = longer, longer + shorter
    return longer


def de_bruijn_word(alphabet: int, length: int) -> list[int]:
    """Every word of `length` letters occurs once: the Lyndon words whose length divides it, in order (Duval)."""
    sequence: list[int] = []
    word = [-1]
    while word:
        word[-1] += 1
        if length % len(word) == 0:
            sequence += word
        word = [word[i % len(word)] for i in range(length)]
        while word and word[-1] == alphabet - 1:
            word.pop()
    return sequence


def check_properties(grammar: Grammar, symbols: list[int]) -> None:
    assert grammar.expand() == tuple(symbols)
    uses = Counter(-symbol for body in grammar.rules for symbol in body if symbol < 0)
    assert set(uses) == set(range(1, len(grammar.rules)))
    assert all(count >= 2 for count in uses.values())
    assert all(len(body) >= 2 for body in grammar.rules[1:])
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for rule, body in enumerate(grammar.rules):
        for position, digram in enumerate(pairwise(body)):
            first = places.setdefault(digram, (rule, position))
            overlaps = first == (rule, position - 1) and digram[0] == digram[1]
            assert first == (rule, position) or overlaps, f"{digram} occurs twice"


ADVERSARIAL = {
    "empty": [],
    "one symbol": [7],
    **{f"{n} equal": [0] * n for n in (2, 3, 4, 5, 7, 8, 15, 16, 17, 1000, 1023)},
    "Fibonacci": fibonacci_word(15),
    "de Bruijn 2": de_bruijn_word(2, 10),
    "de Bruijn 4": de_bruijn_word(4, 5),
    "no repetition": list(range(500)),
    "growing prefixes": [s for n in range(1, 40) for s in range(n)],
    "equal runs": [s for n in range(1, 40) for s in [0] * n + [1]],
    "largest symbol": [2**31 - 1, 0] * 3,
}


@pytest.mark.parametrize("symbols", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_adversarial_strings(symbols):
    grammar = infer_grammar(symbols)
    check_properties(grammar, symbols)
    assert grammar == plain_grammar(symbols)


@given(st.integers(1, 8).flatmap(lambda size: st.lists(st.integers(0, size - 1), max_size=300)))
def test_random_strings(symbols):
    grammar = infer_grammar(symbols)
    check_properties(grammar, symbols)
    assert grammar == plain_grammar(symbols)


@given(st.data())
def test_strings_with_long_repetitions(data):
    phrases = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=5))
    order = data.draw(st.lists(st.integers(0, len(phrases) - 1), max_size=60))
    symbols = [symbol for phrase in order for symbol in phrases[phrase]]
    grammar = infer_grammar(symbols)
    check_properties(grammar, symbols)
    assert grammar == plain_grammar(symbols)


def test_large_input_keeps_the_properties():
    """Long enough that the table of digrams grows and its entries move many times."""
    symbols = np.random.default_rng(0).integers(0, 400, 200_000).tolist()
    check_properties(infer_grammar(symbols), symbols)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("abcdbc", ("a-1d-1", "bc")),
        ("abcdbcabcdbc", ("-1-1", "a-2d-2", "bc")),
        ("abab", ("-1-1", "ab")),
        ("abcabc", ("-1-1", "abc")),
        ("aaa", ("aaa",)),
    ],
)
def test_known_grammars(text, rules):
    """The first two are the examples of Nevill-Manning and Witten, section 2."""
    as_text = tuple(
        "".join(chr(symbol) if symbol >= 0 else str(symbol) for symbol in body)
        for body in infer_grammar([ord(letter) for letter in text]).rules
    )
    assert as_text == rules


def test_expand_gives_the_string_of_a_rule():
    grammar = Grammar(((-1, 9, -1), (-2, 3, -2), (1, 2)))
    assert grammar.expand(1) == (1, 2, 3, 1, 2)
    assert grammar.expand() == (1, 2, 3, 1, 2, 9, 1, 2, 3, 1, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_arrays_of_any_integer_type(dtype):
    strided = np.array([1, 0, 2, 0, 1, 0, 2, 0], dtype=dtype)[::2]
    assert infer_grammar(strided) == infer_grammar([1, 2, 1, 2])


@pytest.mark.parametrize("symbols", [[-1], [2**31], [0.5], [[1, 2]], np.array([2**32 + 1])])
def test_other_symbols_are_refused(symbols):
    with pytest.raises(ValueError, match="symbols must"):
        infer_grammar(symbols)


def test_without_the_native_part(monkeypatch):
    monkeypatch.setitem(sys.modules, "wootz.passes.blocks._sequitur", None)
    with pytest.raises(WootzError, match="installed without its native part"):
        infer_grammar([1, 2])
