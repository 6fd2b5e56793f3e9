"""`wootz subspace sample` and `wootz blocks` on a residual network and on a plain chain."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from click.testing import CliRunner

from wootz.frontend.subspace import read_subspace
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.costs import network_cost
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import save
from wootz.passes.plan.subspace import SKIP, Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.survey import one_group, survey_subspace
from wootz.tools.cli import wootz
from wootz.tools.commands import blocks
from wootz.tools.models import open_network, open_trainable, prunable_network

RESIDUAL = Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt"

CHAIN = """
name: "chain"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
        convolution_param { num_output: 8 kernel_size: 3 } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
        convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv3" top: "ip" inner_product_param { num_output: 3 } }
"""


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "chain.prototxt"
    path.write_text(CHAIN)
    return path


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(wootz, [str(argument) for argument in arguments])


def refusal(*arguments):
    result = run(*arguments)
    assert isinstance(result.exception, WootzError), result.output
    return str(result.exception)


def pruner_of(path):
    network = open_network(str(path)).model
    return BlockPruner.of(replace(network, modules=find_modules(network)[0]))


def survey_of(path, rows, method="maximal"):
    pruner = pruner_of(path)
    subspace = Subspace(tuple(m.name for m in pruner.modules), tuple(rows))
    return pruner, survey_subspace(pruner, subspace, method, one_group)


@pytest.mark.parametrize("method", ["paper", "maximal"])
def test_costs_are_those_of_the_pruned_networks(chain, method):
    cases = {
        chain: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.0), (0.0, 0.5, 0.7), (0.5, 0.0, 0.5)),
        RESIDUAL: ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.75, 0.0), (0.0, 0.9, 0.5, 0.5), (0.9, 0.0, 0.0, 0.5)),
    }
    for path, rows in cases.items():
        pruner, survey = survey_of(path, rows, method)
        for row, cost in zip(rows, survey.costs, strict=True):
            rates = dict(zip(survey.subspace.modules, row, strict=True))
            assert cost == network_cost(pruner.materialize(pruner.plan(rates)))
        assert survey.full == network_cost(pruner.model)


def test_work_of_a_residual_network():
    _, survey = survey_of(RESIDUAL, ((0.5, 0.0, 0.5, 0.5), (0.5, 0.0, 0.9, 0.5)))
    assert [str(use.block) for use in survey.uses] == ["1(0.5) 2(0)", "4(0.5)"]
    assert [str(symbol) for _, symbol in survey.plan.uncovered] == ["3(0.5)", "3(0.9)"]
    students = 3 * sum(use.cost.macs for use in survey.uses)
    assert survey.work.students == students
    assert survey.work.separate == 2 * students
    assert survey.work.teacher == survey.full.macs, "both blocks are in one group"
    assert survey.work.fine_tuning == 3 * sum(cost.macs for cost in survey.costs)
    assert survey.work.break_even == pytest.approx((students + survey.full.macs) / survey.work.fine_tuning)


def test_blocks_at_rate_0_are_not_trained():
    _, survey = survey_of(RESIDUAL, ((0.0, 0.0, 0.5, 0.3), (0.0, 0.0, 0.3, 0.5)))
    assert [str(use.block) for use in survey.uses] == ["1(0) 2(0)"]
    assert survey.groups == ()
    assert survey.work.students == survey.work.teacher == survey.work.separate == 0


def test_a_chain_tells_blocks_apart_by_their_input(chain, tmp_path):
    rows = [[0.5, 0.5, 0.3], [0.5, 0.5, 0.0], [0.0, 0.5, 0.3]]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    result = run("blocks", chain, "--subspace", tmp_path / "s.json", "-o", tmp_path / "blocks.json")
    assert result.exit_code == 0, result.output
    assert "module1 to module2 │ 0.5, 0.5" in result.output
    assert "module3            │ 0.3 behind 0.5" in result.output
    written = json.loads((tmp_path / "blocks.json").read_text())
    assert [b["modules"] for b in written["blocks"]] == [["module1", "module2"], ["module3"]]
    assert [b["input_rates"] for b in written["blocks"]] == [[[], [0.5]], [[0.5]]]
    assert [n["blocks"] for n in written["networks"]] == [["B1", "B2"], ["B1", None], [None, None, "B2"]]
    assert written["uncovered"] == [
        {"network": 1, "module": "module3", "rate": 0.0},
        {"network": 2, "module": "module1", "rate": 0.0},
        {"network": 2, "module": "module2", "rate": 0.5},
    ]


def test_everything_is_written_and_drawn(tmp_path):
    subspace, written = tmp_path / "new" / "folder" / "s.json", tmp_path / "blocks.json"
    assert run("subspace", "sample", RESIDUAL, "--rates", "0.3,0.5", "--count", "8", "-o", subspace).exit_code == 0
    for picture, beginning in (("blocks.png", b"\x89PNG"), ("blocks.svg", b"<?xml")):
        result = run("blocks", RESIDUAL, "--subspace", subspace, "-o", written, "--picture", tmp_path / picture)
        assert result.exit_code == 0, result.output
        assert (tmp_path / picture).read_bytes().startswith(beginning)
    plan = json.loads(written.read_text())
    assert plan["modules"] == ["res2a", "res2b", "res3a", "res3b"]
    assert [n["configuration"] for n in plan["networks"]] == json.loads(subspace.read_text())
    for block in plan["blocks"]:
        assert block["networks"] == [i for i, n in enumerate(plan["networks"]) if block["name"] in n["blocks"]]
    assert sorted(name for group in plan["groups"] for name in group) == sorted(b["name"] for b in plan["blocks"])


def test_long_subspaces_are_shown_in_part_and_say_so(tmp_path):
    assert run("subspace", "sample", RESIDUAL, "--count", "25", "-o", tmp_path / "s.csv").exit_code == 0
    output = run("blocks", RESIDUAL, "--subspace", tmp_path / "s.csv").output
    assert "and 5 more networks: -o FILE.json has all" in output


def test_repeated_configurations_are_warned_of(tmp_path):
    (tmp_path / "s.json").write_text("[[0, 0, 0, 0.5], [0.5, 0, 0, 0.5], [0, 0, 0, 0.5]]")
    result = run("blocks", RESIDUAL, "--subspace", tmp_path / "s.json")
    assert "left out rows that repeat an earlier one: 3 (as 1)" in result.stderr


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("[[0.5, 0.5, 0.5, 0.5]]", "has a single network"),
        ("[[0.5, 0.5], [0.3, 0.3]]", "row 1: 2 rates; a row has 4 rates, one a module, or"),
        ("[[0.5, 0, 0, 0], [0, 0, 1.5, 0]]", "row 2: rate 3 is 1.5"),
        ("[[0.5, 0, 0, 0], [0, 0, 1, 0]]", "row 2: module res3a can't be left out: its entry 'res2b' is 1x32x8x8"),
    ],
)
def test_refused_subspaces(tmp_path, rows, reason):
    (tmp_path / "s.json").write_text(rows)
    assert reason in refusal("blocks", RESIDUAL, "--subspace", tmp_path / "s.json")


def test_modules_that_are_left_out(tmp_path):
    rows = [[0.5, "skip", 0.3, 0], [0.5, 1, 0.5, "skip"], [0, 0.5, 0.3, "skip"], [0.5, "skip", 0.3, 0.0]]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    result = run("blocks", RESIDUAL, "--subspace", tmp_path / "s.json", "-o", tmp_path / "blocks.json")
    assert result.exit_code == 0, result.output
    assert re.search(r"B1 +│ res2a to res2b │ 0.5, skip +│ +2 │ +[\d,]+ │ +[\d,]+ │", result.output)
    assert re.search(r"B3 +│ res3b +│ skip +│ +2 │ +0 │ +0 │", result.output)
    assert "[0.5, skip, 0.3, 0]" in result.output
    written = json.loads((tmp_path / "blocks.json").read_text())
    assert [block["trained"] for block in written["blocks"]] == [True, True, False]
    assert [block["rates"] for block in written["blocks"]] == [[0.5, 1.0], [0.3], [1.0]]
    assert written["groups"] == [["B1", "B2"]]


def test_a_module_that_is_left_out_is_a_letter_where_rates_are_digits(monkeypatch, tmp_path):
    monkeypatch.setattr(blocks, "MOST_MODULES_LISTED", 3)
    (tmp_path / "s.json").write_text('[[0.5, "skip", 0.3, 0], [0.5, 0, 0.3, 0]]')
    output = run("blocks", RESIDUAL, "--subspace", tmp_path / "s.json").output
    assert "networks (the rate of each module in tenths, s: left out)" in output
    assert re.search(r"1 │ 5s30 +│", output)


def test_rows_of_convolutions(tmp_path):
    convolutions = prunable_network(pruner_of(RESIDUAL)).convolutions
    first = [0.5 if c.is_prunable else 0.0 for c in convolutions]
    second = [0.5 if c.is_prunable and c.module == "res2a" else 0.0 for c in convolutions]
    (tmp_path / "s.json").write_text(json.dumps([first, second]))
    assert run("blocks", RESIDUAL, "--subspace", tmp_path / "s.json").exit_code == 0
    locked = next(i for i, c in enumerate(convolutions) if c.module and c.locked)
    second[locked] = 0.3
    (tmp_path / "s.json").write_text(json.dumps([first, second]))
    reason = refusal("blocks", RESIDUAL, "--subspace", tmp_path / "s.json")
    assert f"row 2: rate 0.3 for {convolutions[locked].name}, which can't be pruned: top layer" in reason


def test_a_picture_of_another_kind_is_refused_before_anything_is_read(tmp_path):
    assert "written as .svg or .png" in refusal(
        "blocks", "missing.onnx", "--subspace", tmp_path / "s.json", "--picture", "blocks.gif"
    )


def test_sampling_leaves_whole_what_cannot_be_pruned(tmp_path):
    """The exit of a module of a single convolution is its top layer."""
    marked = CHAIN.replace('type: "Convolution"', 'type: "Convolution" module: "M"')
    for i, name in enumerate(("a", "a", "b")):
        marked = marked.replace('module: "M"', f'module: "{name}"', 1).replace(
            f'name: "relu{i + 1}" type: "ReLU"', f'name: "relu{i + 1}" type: "ReLU" module: "{name}"'
        )
    path = tmp_path / "marked.prototxt"
    path.write_text(marked)
    result = run("subspace", "sample", path, "--rates", "0.3,0.7", "--count", "2", "-o", tmp_path / "s.json")
    assert result.exit_code == 0, result.exception
    assert sorted(json.loads((tmp_path / "s.json").read_text())) == [[0.3, 0], [0.7, 0]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--count", "17", "--rates", "0.3,0.5"), "2 rates for 4 modules give 16 different networks, not 17"),
        (("--count", "2", "--rates", "0.3,1.5"), "1.5 is not a pruning rate"),
        (("--count", "2", "--rates", "0.3,1.0000001"), "1.0000001 is not a pruning rate"),
        (("--count", "2", "--rates", "0.3,-1"), "-1.0 is not a pruning rate"),
    ],
)
def test_refused_samples(tmp_path, arguments, reason):
    assert reason in refusal("subspace", "sample", RESIDUAL, *arguments, "-o", tmp_path / "s.json")


@pytest.mark.parametrize("rates", ["0.5,skip", "1,0.5"])
def test_samples_leave_out_modules_that_can_be(tmp_path, rates):
    """One after the other changes the number of channels, and is pruned instead. All networks that there are are read
    back."""
    pruner = BlockPruner.of(open_trainable(str(RESIDUAL)).model)
    can = [module.name in pruner.skippable for module in pruner.modules]
    assert any(can)
    assert not all(can)
    count = 2 ** sum(can)
    done = run("subspace", "sample", RESIDUAL, "--rates", rates, "--count", count, "--sampling", "independent",
               "-o", tmp_path / "s.json")  # fmt: skip
    assert done.exit_code == 0, done.output
    subspace, warnings = read_subspace(tmp_path / "s.json", prunable_network(pruner))
    assert {*subspace.configurations} == {*product(*((0.5, SKIP) if module else (0.5,) for module in can))}
    assert warnings == ()


def test_skips_are_not_sampled_of_a_chain(tmp_path):
    (tmp_path / "chain.prototxt").write_text(CHAIN)
    arguments = ("--rates", "0.5,skip", "--count", "2", "-o", tmp_path / "s.json")
    assert "no module can be left out: in a chain of layers" in refusal(
        "subspace", "sample", tmp_path / "chain.prototxt", *arguments
    )


def test_an_output_of_another_kind_is_refused(tmp_path):
    assert "written as .json or .csv" in refusal(
        "subspace", "sample", RESIDUAL, "--count", "2", "-o", tmp_path / "s.txt"
    )


@pytest.fixture
def two_rates(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps([[r, s, r, s] for r in (0.3, 0.5) for s in (0.3, 0.5)]))
    (tmp_path / "pretrain.prototxt").write_text(
        "base_lr: 0.1 lr_policy: 'fixed' max_iter: 9 momentum: 0.9 batch_size: 32"
    )
    return ("blocks", RESIDUAL, "--subspace", tmp_path / "s.json", "-o", tmp_path / "blocks.json")


def groups_of(tmp_path):
    written = json.loads((tmp_path / "blocks.json").read_text())
    return written["groups"], written["memory"]


def test_groups(two_rates, tmp_path):
    assert run(*two_rates).exit_code == 0
    assert [len(group) for group in groups_of(tmp_path)[0]] == [8], "one teacher pass for all"
    assert run(*two_rates, "--groups", "paper").exit_code == 0
    assert [len(group) for group in groups_of(tmp_path)[0]] == [4, 4]


def test_groups_by_memory(two_rates, tmp_path):
    solver = ("--pretrain-solver", tmp_path / "pretrain.prototxt")
    result = run(*two_rates, *solver)
    groups, memory = groups_of(tmp_path)
    assert len(groups) == 1
    assert f"group 1 (about {memory[0] / 1e6:.3g} MB)" in result.output
    assert run(*two_rates, *solver, "--memory", f"{memory[0] - 1}").exit_code == 0
    groups, smaller = groups_of(tmp_path)
    assert len(groups) == 2
    assert max(smaller) < memory[0]
    assert "alone takes about" in refusal(*two_rates, *solver, "--memory", "1M")


def test_a_budget_needs_a_batch_size(two_rates):
    assert "--memory goes with --pretrain-solver" in refusal(*two_rates, "--memory", "4G")
    assert "'much' is no amount of bytes" in run(*two_rates, "--memory", "much").output


def test_modules_that_overlap(tmp_path):
    model = replace(open_network(str(RESIDUAL)).model)
    first, second, *_ = find_modules(model)[0]
    save(replace(model, modules=(first, replace(second, entry=first.entry))), tmp_path / "overlap.onnx")
    (tmp_path / "s.json").write_text("[[0.5, 0.5], [0.3, 0.5]]")
    reason = refusal("blocks", tmp_path / "overlap.onnx", "--subspace", tmp_path / "s.json")
    assert reason.startswith(f"modules '{first.name}' and '{second.name}' overlap")


def test_modules_that_leave_gaps_are_warned_of(tmp_path):
    model = open_network(str(RESIDUAL)).model
    first, _, third, _ = find_modules(model)[0]
    save(replace(model, modules=(first, third)), tmp_path / "gap.onnx")
    (tmp_path / "s.json").write_text("[[0.5, 0.5], [0.3, 0.5]]")
    result = run("blocks", tmp_path / "gap.onnx", "--subspace", tmp_path / "s.json")
    assert result.exit_code == 0, result.output
    assert "and 2 more, between modules 'res2a' and 'res3a', is in no module" in result.stderr


def test_a_network_without_convolutions(tmp_path):
    text = CHAIN.replace('"Convolution"', '"InnerProduct"').replace("convolution_param", "inner_product_param")
    (tmp_path / "net.prototxt").write_text(text.replace(" kernel_size: 3", ""))
    (tmp_path / "s.json").write_text("[[0.5], [0.3]]")
    assert "has no modules" in refusal("blocks", tmp_path / "net.prototxt", "--subspace", tmp_path / "s.json")


def test_layers_keep_multiples_of_filters_that_are_fast_or_as_many_as_one_says(tmp_path):
    subspace = tmp_path / "subspace.json"
    subspace.write_text("[[0.3, 0.3, 0.3, 0.3], [0.5, 0.3, 0.3, 0.3]]")

    def parameters(*options):
        done = run("blocks", RESIDUAL, "--subspace", subspace, "-o", tmp_path / "blocks.json", *options)
        assert done.exit_code == 0, done.output
        return [network["parameters"] for network in json.loads((tmp_path / "blocks.json").read_text())["networks"]]

    def expected(rounding):
        pruner = pruner_of(RESIDUAL).rounding_to(rounding)
        names = [m.name for m in pruner.modules]
        return [
            network_cost(pruner.materialize(pruner.plan(dict(zip(names, rates, strict=True))))).parameters
            for rates in json.loads(subspace.read_text())
        ]

    assert parameters("--round-to", "1") == expected(Rounding(1)) != expected(Rounding(8))
    assert parameters("--round-to", "3") == expected(Rounding(3))
    assert parameters() == expected(Rounding(8, (0.3, 0.5))) != expected(Rounding(8))


def test_configurations_that_are_the_same_network_are_left_out_and_named(tmp_path):
    """Of 16 filters a quarter and a tenth are 4 and 1: in multiples of 4 the same."""
    subspace, table = tmp_path / "subspace.json", tmp_path / "blocks.json"
    subspace.write_text("[[0.75, 0.9, 0.5, 0.5], [0.9, 0.9, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.9, 0.75, 0.5, 0.5]]")

    def networks(*options):
        done = run("blocks", RESIDUAL, "--subspace", subspace, "-o", table, *options)
        assert done.exit_code == 0, done.output
        return [network["configuration"] for network in json.loads(table.read_text())["networks"]], done.output

    assert len(networks()[0]) == 4
    left, output = networks("--round-to", "4")
    assert left == [[0.75, 0.9, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
    assert "left out 2 of 4 configurations, which are the same network as an earlier one: " in output
    assert "[0.9, 0.9, 0.5, 0.5] is [0.75, 0.9, 0.5, 0.5], [0.9, 0.75, 0.5, 0.5] is [0.75, 0.9, 0.5, 0.5]." in output
    subspace.write_text("[[0.75, 0.9, 0.5, 0.5], [0.9, 0.9, 0.5, 0.5]]")
    assert "has a single network" in refusal("blocks", RESIDUAL, "--subspace", subspace, "--round-to", "4")


def test_sampled_configurations_are_different_networks(tmp_path):
    subspace = tmp_path / "subspace.json"

    def sample(count, *options):
        arguments = ("--rates", "0.5,0.75,0.9", "--count", count, "-o", subspace, *options)
        return ("subspace", "sample", RESIDUAL, *arguments)

    assert run(*sample(40)).exit_code == 0
    assert {r for row in json.loads(subspace.read_text()) for r in row} == {0.5, 0.75, 0.9}
    assert run(*sample(16, "--round-to", "4")).exit_code == 0
    assert {r for row in json.loads(subspace.read_text()) for r in row[:2]} == {0.5, 0.75}
    done = run("blocks", RESIDUAL, "--subspace", subspace, "--round-to", "4")
    assert done.exit_code == 0
    assert "left out" not in done.output
    assert "give 36 different networks, not 37" in refusal(*sample(37, "--round-to", "4"))


def test_many_modules_take_a_line_a_network(tmp_path):
    text, below = CHAIN.split('layer { name: "conv1"')[0], "data"
    for number in range(14):
        text += (
            f'layer {{ name: "c{number}" type: "Convolution" bottom: "{below}" top: "c{number}" '
            f"convolution_param {{ num_output: 10 kernel_size: 1 }} }} "
        )
        below = f"c{number}"
    text += f'layer {{ name: "ip" type: "InnerProduct" bottom: "{below}" top: "ip" '
    (tmp_path / "net.prototxt").write_text(text + "inner_product_param { num_output: 3 } }")
    rates = [[0.3, 0.5] * 7, [0.7] * 5 + [0.0] * 9]
    for networks, row in ((rates, r"│ 35353 53535 3535 │"), ([[0.25] * 14, rates[0]], r"\[0.25, 0.25")):
        (tmp_path / "subspace.json").write_text(json.dumps(networks))
        done = run("blocks", tmp_path / "net.prototxt", "--subspace", tmp_path / "subspace.json")
        assert done.exit_code == 0, done.output
        assert re.search(row, done.output), done.output
        assert done.output.startswith("net.prototxt: 14 modules (from its ")
