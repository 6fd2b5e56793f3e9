"""`wootz cache`: what it lists, what it removes."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from wootz.runtime.data import decoding
from wootz.runtime.data.cache import Cache
from wootz.runtime.data.loading import load_dataset
from wootz.tools.cli import wootz


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache with the photographs of one data set in two sizes."""
    monkeypatch.setattr(decoding, "IN_MEMORY", 0)
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(5):
            pixels = generator.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    for side in (8, 6):
        load_dataset(str(tmp_path / "pets"), (3, side, side), resize="pad", cache=tmp_path / "cache")
    return tmp_path / "cache"


def cache(*arguments) -> str:
    done = CliRunner().invoke(wootz, ["cache", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_ls(folder, tmp_path):
    header, first, second, total = cache("ls", "--cache", folder).splitlines()
    assert header.split() == ["IMAGES", "CxHxW", "RESIZE", "SIZE", "LAST", "USED", "OF"]
    assert first.split()[:3] == ["10", "3x6x6", "pad"]
    assert second.split()[:3] == ["10", "3x8x8", "pad"]
    assert first.endswith(str(tmp_path / "pets"))
    assert total.startswith(f"{folder}: 2 data sets, ")


def test_gc_and_clear(folder):
    assert cache("gc", "--cache", folder).startswith(f"{folder}: removed 0 data sets")
    newest = Cache(folder).holdings()[0]
    assert cache("gc", "--cache", folder, "--limit", newest.size).startswith(f"{folder}: removed 1 data set, ")
    assert [holding.key for holding in Cache(folder).holdings()] == [newest.key]
    assert cache("clear", "--cache", folder).startswith(f"{folder}: removed 1 data set, ")
    assert list(folder.iterdir()) == []


def test_a_cache_that_is_not_there(tmp_path):
    assert cache("ls", "--cache", tmp_path / "none") == f"{tmp_path}/none: 0 data sets, 0 B\n"
    assert cache("clear", "--cache", tmp_path / "none").startswith(f"{tmp_path}/none: removed 0 data sets")
    assert not (tmp_path / "none").exists()
