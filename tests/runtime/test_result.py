"""`result.json`: what is written is read back, and nothing else is."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.frontend.objective import parse_objective
from wootz.passes.errors import InputError
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.metrics import Metric
from wootz.runtime.result import (
    BestNetwork,
    BlockSymbol,
    Environment,
    Exploration,
    FailedBlockResult,
    FailedFullNetworkResult,
    FailedNetworkResult,
    FullNetworkResult,
    InfeasibleNetworkResult,
    PhaseSeconds,
    QualityResult,
    Reuse,
    RunResult,
    TrainedBlockResult,
    TrainedNetworkResult,
    UntriedNetworkResult,
    block_symbols,
    block_text,
    encode,
    objective_result,
    read_result,
)

counts = st.integers(0, 2**53)
fractions = st.floats(0, 1)
seconds = st.floats(0, 1e9)
numbers = st.floats(allow_nan=False, allow_infinity=False)
rates = fractions | st.lists(fractions, max_size=3).map(tuple)
words = st.text(max_size=8)
curves = st.lists(st.tuples(counts, fractions), max_size=4).map(tuple)
flags = st.booleans()


def rows(elements, size):
    return st.lists(elements, min_size=size, max_size=size).map(tuple)


def architecture(modules):
    return {
        "configuration": rows(rates, modules),
        "model_size": counts,
        "flops": counts,
        "latency_ms": st.none() | numbers,
    }


def explored(modules, blocks):
    """Networks that are 0, 1, 2, … in the subspace."""
    known = {**architecture(modules), "index": st.just(0)}
    sources = {
        "blocks": rows(st.none() | st.integers(0, blocks - 1), modules) if blocks else st.just((None,) * modules)
    }
    ends = st.sampled_from(["all steps", "bound met", "given up"])
    trained = st.builds(
        TrainedNetworkResult,
        **known,
        **sources,
        quality=fractions,
        initial_quality=fractions,
        curve=curves,
        kept=counts,
        steps=counts,
        steps_saved=counts,
        ended=ends,
        seconds=seconds,
        reused=flags,
    )
    failed = st.builds(FailedNetworkResult, **known, **sources, reason=words, reused=flags)
    rest = st.builds(UntriedNetworkResult, **known) | st.builds(InfeasibleNetworkResult, **known, violates=words)
    return st.lists(trained | failed | rest, max_size=5).map(
        lambda networks: tuple(msgspec.structs.replace(n, index=i) for i, n in enumerate(networks))
    )


def chosen(draw, networks, modules):
    trained = [n.index for n in networks if isinstance(n, TrainedNetworkResult)]
    index = draw(st.none() | st.sampled_from(trained)) if trained else None
    best = st.builds(BestNetwork, **architecture(modules), index=st.just(index), model=st.none() | words,
                     quality=fractions, test_quality=st.none() | fractions)  # fmt: skip
    return None if index is None else draw(best)


def evaluated(networks):
    return sum(isinstance(n, TrainedNetworkResult | FailedNetworkResult) for n in networks)


@st.composite
def run_results(draw):
    modules = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    n = len(modules)
    symbols = st.builds(
        BlockSymbol, module=st.sampled_from(modules), rate=rates, input_rates=st.lists(rates).map(tuple)
    )
    block = {"symbols": st.lists(symbols, max_size=3).map(tuple), "networks": counts, "reused": flags}
    blocks = draw(st.lists(
        st.builds(TrainedBlockResult, **block, initial_error=numbers, final_error=numbers, steps=counts)
        | st.builds(FailedBlockResult, **block, reason=words), max_size=4))  # fmt: skip
    known = {**architecture(n), "new_layers": st.lists(words).map(tuple), "reused": flags}
    full = st.builds(FullNetworkResult, **known, model=words, quality=fractions, test_quality=st.none() | fractions,
                     origin=st.sampled_from(["given", "fine-tuned", "trained from scratch"]), curve=curves,
                     steps=counts, seconds=seconds)  # fmt: skip
    failed = st.builds(FailedFullNetworkResult, **known, reason=words,
                       origin=st.sampled_from(["fine-tuned", "trained from scratch"]))  # fmt: skip
    networks, default = draw(explored(n, len(blocks))), draw(st.none() | explored(n, len(blocks)))
    baseline = default and Exploration(
        best=chosen(draw, default, n), networks=default, networks_evaluated=evaluated(default), seconds=draw(seconds)
    )
    objective = parse_objective("min ModelSize constraint Accuracy >= 0.5 * full - 0.1", "test")
    return RunResult(
        quality=QualityResult.of(Metric.ACCURACY),
        best=chosen(draw, networks, n),
        full=draw(full | failed),
        networks_evaluated=evaluated(networks),
        networks_feasible=draw(counts),
        networks_total=draw(counts),
        baseline=baseline or None,
        seconds=draw(
            st.builds(
                PhaseSeconds,
                plan=seconds,
                teacher=seconds,
                pretraining=seconds,
                exploration=seconds,
                baseline=seconds,
                total=seconds,
            )
        ),
        reuse=draw(
            st.builds(
                Reuse, teacher=flags, blocks=counts, networks=counts, baseline_networks=counts, seconds_saved=seconds
            )
        ),
        seed=draw(st.integers(-(2**31), 2**31)),
        network=draw(words),
        data=draw(words),
        objective=objective_result(objective, draw(st.sampled_from([{}, {Metric.ACCURACY: 0.9}]))),
        classes=draw(st.lists(words).map(tuple)),
        modules=tuple(modules),
        modules_source=draw(words),
        networks=networks,
        blocks=tuple(blocks),
        groups=draw(st.lists(st.lists(st.integers(0, len(blocks) - 1)).map(tuple)).map(tuple)) if blocks else (),
        notes=draw(st.lists(words).map(tuple)),
        environment=draw(st.builds(Environment, workers=counts)),
    )


@given(run_results())
def test_a_result_survives_its_file(tmp_path_factory, result):
    folder = tmp_path_factory.mktemp("run")
    result.save(folder)
    assert RunResult.load(folder) == result


@given(run_results())
def test_the_file_is_plain_json_in_which_nothing_is_text_that_is_a_number(result):
    table = json.loads(encode(result), parse_constant=lambda name: pytest.fail(name))
    assert table["schema"] == 2
    assert {n["state"] for n in table["networks"]} <= {"trained", "failed", "not tried", "infeasible"}
    for network in (table["full"], *table["networks"]):
        assert len(network["configuration"]) == len(table["modules"])
        assert all(isinstance(r, float | int) or all(isinstance(x, float) for x in r) for r in network["configuration"])
    for block in table["blocks"]:
        assert {s["module"] for s in block["symbols"]} <= set(table["modules"])


@pytest.fixture(scope="module")
def table():
    """A result as JSON, to be damaged."""
    architecture = {"configuration": [0.5, 0], "model_size": 10, "flops": 20}
    network = {**architecture, "index": 4, "state": "trained", "quality": 0.9, "initial_quality": 0.5,
               "blocks": [0, None], "curve": [[0, 0.5], [10, 0.9]], "kept": 10, "steps": 10, "seconds": 1}  # fmt: skip
    return {
        "schema": 2,
        "quality": {"name": "Accuracy", "higher_is_better": True, "format": "share"},
        "best": {**architecture, "index": 4, "model": "best.onnx", "quality": 0.9, "test_quality": None},
        "full": {**architecture, "state": "trained", "model": "teacher.onnx", "quality": 1, "test_quality": None,
                 "origin": "given"},
        "networks_evaluated": 1, "networks_feasible": 1, "networks_total": 1, "baseline": None,
        "seconds": {"total": 3}, "reuse": {}, "seed": 0, "network": "n", "data": "d",
        "objective": {"text": "max Accuracy", "direction": "max", "metric": "Accuracy", "constraints": []},
        "classes": [], "modules": ["a", "b"], "modules_source": "marks", "networks": [network],
        "blocks": [{"state": "failed", "symbols": [{"module": "a", "rate": 0.5}], "networks": 2, "reason": "because"}],
        "groups": [[0]],
        "environment": {"wootz": "0", "python": "3", "platform": "", "runtime": "", "executor": "", "workers": 1,
                        "device": "cpu", "precision": "float32", "target": "onnx"},
    }  # fmt: skip


def test_fields_of_a_later_version_are_passed_over(table, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(table))
    found = RunResult.load(tmp_path)
    (network,) = found.block_trained.trained
    assert (network.index, network.model_size, network.flops, network.quality) == (4, 10, 20, 0.9)
    assert found.full.measured(Metric.ACCURACY) == {Metric.MODEL_SIZE: 10, Metric.FLOPS: 20, Metric.ACCURACY: 1}
    (tmp_path / "result.json").write_text(json.dumps({**table, "colour": "blue"}))
    assert RunResult.load(tmp_path) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 1}, "schema 1, not 2"),
        ({"schema": None}, "no schema number, not 2"),
        ({"seed": "zero"}, "Expected `int`, got `str` - at `$.seed`"),
        ({"networks_evaluated": 3}, "networks_evaluated is 3"),
        ({"networks": []}, "networks_evaluated is 1"),
        ({"modules": ["a"]}, "2 values where there are 1 modules"),
        ({"modules": ["c", "b"]}, "a block of a, which is no module"),
        ({"groups": [[0, 1]]}, "block 1 of 1"),
        ({"networks": [{"state": "lost"}]}, "Invalid value 'lost'"),
        ({"best": {"index": 4}}, "missing required field"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_with_the_files_name(table, tmp_path, change, said):
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**table, **change}))
    with pytest.raises(InputError) as refused:
        read_result(file)
    assert str(refused.value).startswith(f"{file}: not the result of a run")
    assert said in str(refused.value)


def test_the_best_is_one_that_was_trained(table, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({**table, "best": {**table["best"], "index": 0}}))
    with pytest.raises(InputError, match="the best network, 0, is none that was trained"):
        RunResult.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"{}", b"no json", b"[]", b"3", b"\xff", b"", b"[" * 100_000, b'{"schema": 1e999}']
)
def test_a_foreign_file(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(InputError, match=r"result\.json: not the result of a run"):
        RunResult.load(tmp_path)


def test_a_folder_without_a_result(tmp_path):
    with pytest.raises(InputError, match=r"no result\.json in this folder"):
        RunResult.load(tmp_path)


def test_bounds_are_numbers_where_the_full_network_is_known():
    objective = parse_objective("min FLOPs constraint Accuracy >= full - 0.25 constraint ModelSize < 1000", "test")
    known = objective_result(objective, {Metric.ACCURACY: 0.75})
    assert [c.bound for c in known.constraints] == [0.5, 1000]
    assert [c.bound for c in objective_result(objective, {}).constraints] == [None, 1000]
    assert known.text == str(objective)


def test_a_block_is_written_as_the_planner_writes_it():
    block = TuningBlock((Symbol(1, 0.5), Symbol(2, (0.3, 0.5), (0.5,))))
    assert block_text(block_symbols(block, ["a", "b", "c"]), ["a", "b", "c"]) == str(block)
