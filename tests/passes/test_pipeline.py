"""Pipelines: text to passes and back, verification between passes, and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import InputError, PassError, VerificationError, WootzError
from wootz.passes.ir.model import Model, Variable
from wootz.passes.ir.text import parse_text, print_text
from wootz.passes.pipeline import (
    Observers,
    ir_printer,
    parse_pass,
    parse_pipeline,
    print_pass,
    print_pipeline,
    run_pipeline,
)
from wootz.passes.registry import PASSES, PIPELINES, load_passes, pass_class

CHAIN = '<ir_version: 8, opset_import: ["" : 18]> g (float[1] x) => (float[1] y) { [a] z = Relu(x) [b] y = Tanh(z) }'


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Everything(Pass):
    """Has an option of every type."""

    name = "everything"
    flag: bool = option(False, "a truth value")
    count: int = option(1, "a whole number")
    share: float | None = option(None, "a number")
    text: str = option("", "a text")
    file: Path | None = option(None, "a file")
    word: Literal["one", "two"] = option("one", "a word")
    colour: Colour = option(Colour.RED, "a member")
    numbers: tuple[float, ...] = option((), "a list")
    rates: tuple[float | tuple[float, ...], ...] = option((), "a list with lists in it")
    table: Mapping[str, float] = field(default_factory=dict, metadata={"help": "a table"})

    def apply(self, model: Model) -> PassResult:
        return PassResult(model, modified=False)


@dataclass(frozen=True)
class Break(Pass):
    """Leaves a graph whose output nothing computes."""

    name = "break"

    def apply(self, model: Model) -> PassResult:
        broken = model.copy()
        broken.graph.outputs = [Variable("nowhere", "float32", [1])]
        return PassResult(broken, modified=True)


@dataclass(frozen=True)
class Refuse(Pass):
    """Refuses everything."""

    name = "refuse"

    def apply(self, model: Model) -> PassResult:
        raise self.refuse("won't", "a")


LOADED = {cls.name: cls for cls in (Everything, Break, Refuse)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("everything", Everything()),
        ("everything{}", Everything()),
        ("everything{flag=true count=3}", Everything(flag=True, count=3)),
        ("everything{share=0.5, count=2}", Everything(share=0.5, count=2)),
        ("everything{numbers=1,2.5 word=two}", Everything(numbers=(1.0, 2.5), word="two")),
        ("everything{numbers=1,2.5,word=two}", Everything(numbers=(1.0, 2.5), word="two")),
        ("everything{rates=0.3,0.5/0.7,0}", Everything(rates=(0.3, (0.5, 0.7), 0.0))),
        ("everything{table=conv1:0.5,a.b/c:0.25}", Everything(table={"conv1": 0.5, "a.b/c": 0.25})),
        ('everything{text="a {b}, c=1" colour=blue}', Everything(text="a {b}, c=1", colour=Colour.BLUE)),
        ("everything{file=/tmp/plan.json}", Everything(file=Path("/tmp/plan.json"))),
    ],
)
def test_options_are_parsed_by_their_types(text: str, expected: Everything) -> None:
    assert parse_pass(text, LOADED) == expected


def test_a_pipeline_is_split_outside_of_braces() -> None:
    passes = parse_pipeline('everything{numbers=1,2}, verify ,everything{text="a,b"}', LOADED)
    assert [p.name for p in passes] == ["everything", "verify", "everything"]


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_a_name_stands_for_the_passes_of_its_pipeline(name: str) -> None:
    assert print_pipeline(parse_pipeline(name)) == PIPELINES[name]
    assert name not in PASSES
    around = print_pipeline(parse_pipeline(f"fold-constants,{name},verify"))
    assert around == f"fold-constants,{PIPELINES[name]},verify"


def test_options_of_a_named_pipeline_are_those_of_its_passes() -> None:
    text = 'training{attach-loss.loss=mse build-gradients.frozen="a.weight,b/" apply-optimizer.momentum=0.9}'
    assert print_pipeline(parse_pipeline(text)) == (
        "trainable-part,training-mode,attach-loss{loss=mse},build-gradients{frozen=a.weight,b/},"
        "apply-optimizer{momentum=0.9},legalize"
    )


def test_a_loaded_pass_may_have_the_name_of_a_pipeline() -> None:
    assert parse_pipeline("training", {"training": Everything}) == (Everything(),)


numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=("C",)))


@given(
    st.builds(
        Everything,
        flag=st.booleans(),
        count=st.integers(),
        share=st.none() | numbers,
        text=words,
        word=st.sampled_from(["one", "two"]),
        colour=st.sampled_from(Colour),
        numbers=st.lists(numbers).map(tuple),
        rates=st.lists(numbers | st.lists(numbers, min_size=2).map(tuple)).map(tuple),
        table=st.dictionaries(st.from_regex(r"[\w./]+", fullmatch=True), numbers),
    )
)
def test_printing_and_parsing_give_the_pass_back(pass_: Everything) -> None:
    assert parse_pipeline(print_pipeline([pass_, pass_]), LOADED) == (pass_, pass_)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("everythin", "no pass named 'everythin': did you mean 'everything'?"),
        ("xyz", "no pass named 'xyz': wootz-opt --list-passes shows them all"),
        ("everything{cuont=3}", "pass everything has no option 'cuont': did you mean 'count'?"),
        ("verify{all=true}", "pass verify has no option 'all': it has none"),
        ("everything{count=half}", "pass everything, option count: 'half' is not a whole number"),
        ("everything{share=half}", "pass everything, option share: 'half' is not a number"),
        ("everything{flag=yes}", "pass everything, option flag: 'yes' is neither true nor false"),
        ("everything{word=three}", "pass everything, option word: 'three' is none of one, two"),
        ("everything{count=1 count=2}", "pass everything: option count is given twice"),
        ("everything{count}", "pass everything: 'count' is no option (option=value)"),
        ("everything{count=1", "pipeline 'everything{count=1': the braces don't match"),
        (
            "training{momentum=0.9}",
            "pipeline training: 'momentum' is no option of a pass in it, PASS.OPTION (passes: "
            "trainable-part, training-mode, attach-loss, build-gradients, apply-optimizer, legalize)",
        ),
        ("training{legalize.tagret=onnx}", "pass legalize has no option 'tagret': did you mean 'target'?"),
        ("two words", "'two words' is no pass: NAME or NAME{option=value …}"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(WootzError) as refusal:
        parse_pipeline(text, LOADED)
    assert str(refusal.value) == message


def test_a_pass_that_breaks_the_model_is_named() -> None:
    with pytest.raises(VerificationError) as refusal:
        run_pipeline(parse_text(CHAIN), parse_pipeline("verify,break,verify", LOADED))
    assert str(refusal.value) == "output 'nowhere': nothing computes it (after break (after verify))"


def test_without_verification_the_model_is_passed_on() -> None:
    result = run_pipeline(parse_text(CHAIN), parse_pipeline("break", LOADED), verify_each=False)
    assert result.model.graph.outputs[0].name == "nowhere"


def test_a_refusal_names_the_passes_before() -> None:
    with pytest.raises(PassError) as refusal:
        run_pipeline(parse_text(CHAIN), parse_pipeline("verify,infer-shapes,refuse", LOADED))
    assert str(refusal.value) == "refuse: a: won't (after verify, infer-shapes)"


def test_observers_see_every_pass() -> None:
    seen: list[str] = []
    observers = Observers(
        before=[lambda p, model: seen.append(f"before {p.name}")],
        after=[lambda step, before: seen.append(f"after {step.pass_.name}")],
    )
    result = run_pipeline(parse_text(CHAIN), parse_pipeline("verify,infer-shapes"), observers=observers)
    assert seen == ["before verify", "after verify", "before infer-shapes", "after infer-shapes"]
    assert [print_pass(step.pass_) for step in result.steps] == ["verify", "infer-shapes"]


def test_models_are_printed_around_passes_that_are_named() -> None:
    written: list[str] = []
    model, passes = parse_text(CHAIN), parse_pipeline("verify,infer-shapes")
    run_pipeline(model, passes, observers=ir_printer(written.append, before=["infer-shapes"], after=["verify"]))
    assert written == [
        f"# ----- IR after verify -----\n{print_text(model)}",
        f"# ----- IR before infer-shapes -----\n{print_text(model)}",
    ]
    written.clear()
    run_pipeline(model, passes, observers=ir_printer(written.append, after=None, text=lambda m: m.graph.name))
    assert written == ["# ----- IR after verify -----\ng", "# ----- IR after infer-shapes -----\ng"]


def test_a_pipeline_is_no_pass() -> None:
    with pytest.raises(WootzError, match="no pass named 'training': it is a pipeline, --pass-pipeline=training"):
        parse_pass("training")


def test_passes_are_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from wootz.passes.base import Pass, PassResult\n"
        "@dataclass(frozen=True)\n"
        "class Nothing(Pass):\n"
        "    'Does nothing.'\n"
        "    name = 'nothing'\n"
        "    def apply(self, model):\n"
        "        return PassResult(model, False)\n"
    )
    loaded = load_passes(file)
    assert pass_class("nothing", loaded).summary() == "Does nothing."
    assert parse_pass("nothing", loaded).apply(parse_text(CHAIN)).modified is False


@pytest.mark.parametrize(
    ("content", "message"),
    [("x = 1", "defines no pass"), ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'")],
)
def test_a_file_without_passes_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        load_passes(file)
