"""Digests of code: the same for the same code, others for whatever changes what it computes."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from wootz.passes.errors import WootzError
from wootz.runtime.code_digest import code_digest

IGNORED = 255


def helper(x):
    return x


def plain(x, scale=2):
    return x * scale


def reading(x):
    return helper(x) + IGNORED


def closing_over(value):
    def inner(x):
        return x + value

    return inner


class Base:
    weight = 2

    def add(self, x):
        return self.weight * x


class Derived(Base):
    value = 0


def executed(source, name="f"):
    """Of code without a known source."""
    names = {"__name__": "no module"}
    exec(source, names)
    return code_digest(names[name])


def test_what_is_outside_of_the_function_counts(monkeypatch):
    before = code_digest(reading), code_digest(Derived)
    monkeypatch.setitem(reading.__globals__, "IGNORED", 254)
    assert code_digest(reading) != before[0]
    monkeypatch.undo()
    assert code_digest(reading) == before[0]
    monkeypatch.setitem(reading.__globals__, "helper", plain)
    assert code_digest(reading) != before[0]
    assert code_digest(closing_over(1)) == code_digest(closing_over(1)) != code_digest(closing_over(2))
    monkeypatch.setattr(Base, "weight", 3)
    assert code_digest(Derived) != before[1]


def test_arguments_of_partials_count():
    variants = [
        plain,
        partial(plain, scale=3),
        partial(plain, scale=(3,)),
        partial(plain, scale=np.arange(3)),
        partial(plain, scale=np.arange(4)),
        partial(plain, scale={"a": [1, 2]}),
        partial(plain, scale={"a": [1, 3]}),
        partial(plain, scale=helper),
        partial(plain, scale=reading),
    ]
    assert len({*map(code_digest, variants)}) == len(variants)
    assert code_digest(partial(plain, scale={"a": [1, 2]})) == code_digest(variants[5])
    with pytest.raises(WootzError, match=r"what of <object object at .* depends on isn't known: put it into a file"):
        code_digest(partial(plain, scale=object()))


def test_lambdas_in_one_line_differ():
    one, two = (lambda x: x + 1), (lambda x: x + 2)
    assert code_digest(one) != code_digest(two)


SOURCES = [
    "def f(x): return x + 1",
    "def f(x): return x + 2",
    "def f(x, y=1): return x + y",
    "def f(x, y=2): return x + y",
    "def f(x): return x in {1, 2, 'three'}",
    "def f(x): return x.mean()",
    "def f(x): return x.sum()",
    "def f(x): return [y for y in (lambda z: z + 1)(x)]",
    "def f(x): return [y for y in (lambda z: z + 2)(x)]",
    "class f:\n  def add(s, x): s.v = x\n  def value(s): return s.v",
    "class f:\n  def add(s, x): s.v = -x\n  def value(s): return s.v",
    "class f:\n  k = 2\n  def add(s, x): s.v = -x\n  def value(s): return s.v",
    "class f:\n  def add(s, x): s.v = -x\n  @property\n  def value(s): return 2 * s.v",
]


def test_code_without_a_source():
    digests = [*map(executed, SOURCES)]
    assert len(set(digests)) == len(SOURCES)
    assert digests == [*map(executed, SOURCES)]


def test_another_process_has_the_same_digests():
    """Sets are in another order there."""
    script = f"""
from wootz.runtime.code_digest import code_digest
for source in {SOURCES!r}:
    names = {{"__name__": "no module"}}
    exec(source, names)
    print(code_digest(names["f"]))
"""
    done = subprocess.run([sys.executable], input=script, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*map(executed, SOURCES)]


def test_code_that_is_not_known():
    with pytest.raises(WootzError, match=r"the source of <built-in function max> is not known: put it into a file"):
        code_digest(max)
