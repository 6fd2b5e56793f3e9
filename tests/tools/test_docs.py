"""What the documents point to is there: files, headings, and options of the programs."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from wootz.tools.cli import COMMANDS

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md"))]


def anchors(document: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^(    |```).*?$", "", document.read_text())
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.stem)
def test_links_lead_somewhere(document):
    text = re.sub(r"(?ms)^```.*?^```$", "", document.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for link in (link for link in links if "://" not in link):
        file, _, anchor = link.partition("#")
        target = document.parent / file if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        yield from options(inner)


def test_the_readme_names_options_and_examples_that_there_are():
    text = re.sub("python benchmarks/.*", "", (REPOSITORY / "README.md").read_text().replace("\\\n", ""))
    known = {"--pass", "--list-passes"}  # of wootz-opt
    for place in (command.place for command in COMMANDS.values()):
        module, _, function = place.partition(":")
        known.update(options(getattr(import_module(module), function)))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) <= known
    for example in re.findall(r"(?<![\w/])examples/[\w./]+\w", text):
        assert (REPOSITORY / example).exists(), example
