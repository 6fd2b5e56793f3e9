"""What a latency table says, by arithmetic that numpy repeats; its file; and what is made of times."""

import json
import math
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import InputError, WootzError
from wootz.passes.plan.blocks import Symbol
from wootz.passes.plan.subspace import SKIP
from wootz.runtime.latency_table.measure import LEAST_ROUNDS, WARM_UP, clock_for, summary, take_turns
from wootz.runtime.latency_table.table import (
    Correction,
    LatencyTable,
    MeasuredOn,
    ModuleTimes,
    Piece,
    Times,
    WholeNetwork,
    fitted_correction,
    read_table,
)


def times(ms, spread=0.1, outliers=0):
    return Times(low_ms=ms, median_ms=ms, high_ms=ms * (1 + spread), runs=20, outliers=outliers)


def piece(rate, ms, macs=0, before=()):
    return Piece(rate=rate, input_rates=before, macs=macs, times=times(ms) if ms else Times())


def network(configuration, use, ms):
    return WholeNetwork(configuration=configuration, use=use, times=times(ms))


def a_table(**changes):
    """Two modules and 1 ms outside of them; whole networks take 0.2 ms and 0.9 times what the pieces take."""
    fields = {
        "measured_on": MeasuredOn(image_shape=(3, 8, 8), threads=1),
        "modules": (
            ModuleTimes(module="a", pieces=(piece(0, 2.0, 20), piece(0.5, 1.5, 10), piece(SKIP, 0))),
            ModuleTimes(module="b", pieces=(piece(0, 3.0, 20), piece(0.5, 2.0, 10), piece(0.75, 1.0, 5))),
        ),
        "networks": (
            network((0, 0), "outside", 6.0),
            network((0.5, 0.5), "fit", 0.6 + 0.9 * 4.5),
            network((0.5, 0.75), "fit", 0.6 + 0.9 * 3.5),
            network((0, 0.5), "check", 0.6 + 0.9 * 5.0),
            network((0, 0.75), "check", (0.6 + 0.9 * 4.0) * 1.25),
        ),
    }
    return LatencyTable(**{**fields, **changes})


def test_a_network_takes_what_its_pieces_take_and_the_correction():
    table = a_table()
    assert table.pieces[Symbol(0, 0.5)] == 1.5
    assert table.pieces[Symbol(2, 0.0)] == 1.0
    assert table.correction == Correction(pytest.approx(0.6), pytest.approx(0.9))
    assert table.predict((0.0, 0.75)) == pytest.approx(0.6 + 0.9 * 4.0)
    assert table.predict((0.5, 0.0)) == pytest.approx(sum(table.costs[s] for s in table.space.spell((0.5, 0.0))))


def test_the_error_is_that_on_networks_which_were_not_fitted_to():
    table = a_table()
    assert (table.error.worst, table.error.networks) == (pytest.approx(0.2), 2)
    assert table.error.median == pytest.approx(0.1)
    off = [abs(5.0 / 5.1 - 1), abs(4.0 / (4.2 * 1.25) - 1)]
    assert (table.error_before.median, table.error_before.worst) == pytest.approx((np.mean(off), max(off)))


def test_a_module_that_is_left_out_takes_nothing():
    """Also not what each module costs beside its pieces."""
    assert a_table().predict((SKIP, 0.0)) == pytest.approx(0.6 + 0.9 * 4.0)
    pieces = {(a, b): (2.0, 1.5, 0.0)[a] + (3.0, 2.0, 1.0)[b] for a in range(3) for b in range(3)}
    rates = ((0.0, 0.5, SKIP), (0.0, 0.5, 0.75))
    networks = tuple(
        network((rates[0][a], rates[1][b]), "fit" if a or b else "outside", 1 + ms - 0.1 * (1 + (a < 2)))
        for (a, b), ms in pieces.items()
    )
    table = a_table(networks=networks)
    assert table.correction.module_ms == pytest.approx(-0.1)
    for whole in networks:
        assert table.predict(whole.configuration) == pytest.approx(whole.times.median_ms)
    assert table.costs[Symbol(0, SKIP)] == 0


@given(
    st.lists(st.tuples(st.floats(0.1, 100), st.integers(1, 5), st.floats(0.5, 2)), min_size=4, max_size=12),
    st.booleans(),
)
def test_the_correction_is_the_least_squares_of_relative_differences(rows, of_equal_length):
    additive, modules, factors = map(np.array, zip(*rows, strict=True))
    if of_equal_length:
        modules[:] = 3
    measured = additive * factors
    found = fitted_correction(additive, modules, measured)
    columns = [np.ones(len(rows)), additive] + ([modules] if len(set(modules)) > 1 else [])
    matrix = np.stack(columns, axis=1) / measured[:, None]
    expected = np.linalg.lstsq(matrix, np.ones(len(rows)), rcond=None)[0]
    if len(set(additive)) < max(3, len(columns)) or expected[1] <= 0:
        assert found == Correction()
    else:
        predicted = [found(*row) for row in zip(additive, modules, strict=True)]
        np.testing.assert_allclose(predicted / measured, matrix @ expected, rtol=1e-6, atol=1e-9)


def test_too_few_networks_are_not_corrected():
    table = a_table(networks=a_table().networks[:2])
    assert table.correction == Correction()
    assert table.error is table.error_before is None


def test_in_a_chain_a_piece_depends_on_what_is_before_it_and_others_are_interpolated():
    """Behind rates 0 and 0.75 the second module was measured, not behind 0.5, where it has half of the macs."""
    b = tuple(piece(r, ms, macs, (before,)) for r, before, ms, macs in
              [(0, 0, 4.0, 40), (0, 0.5, 0, 20), (0, 0.75, 1.0, 10), (0.5, 0, 2.0, 20), (0.5, 0.5, 0, 10),
               (0.5, 0.75, 0.5, 5)])  # fmt: skip
    a = (piece(0, 2.0, 20), piece(0.5, 1.5, 10), piece(0.75, 1.0, 5))
    table = a_table(
        modules=(ModuleTimes(module="a", pieces=a), ModuleTimes(module="b", inputs=("a",), pieces=b)),
        outside_inputs=("b",),
        networks=(network((0, 0), "outside", 7.0), network((0, 0.5), "outside", 4.5)),
    )
    assert table.space.spell((0.5, 0.0))[1] == Symbol(1, 0.0, (0.5,), is_open=True)
    assert table.predict((0.5, 0.0)) == pytest.approx(1.5 + 2.0 + 1.0)
    assert table.predict((0.75, 0.5)) == pytest.approx(1.0 + 0.5 + 0.5)


def test_what_is_not_in_the_table_is_named():
    with pytest.raises(WootzError, match=r"^the latency table lacks module b at rate 0.25$"):
        a_table().predict((0.0, 0.25))
    with pytest.raises(WootzError, match="3 rates, and a latency table of 2 modules"):
        a_table().predict((0.0, 0.0, 0.0))


def test_what_was_odd_is_told():
    """Outliers are, where they are many and times spread."""
    assert a_table().warnings == ()
    busy = WholeNetwork(configuration=(0, 0), use="outside", times=times(6.0, spread=0.4, outliers=13))
    outliers, disturbed = a_table(networks=(busy,), measured_on=MeasuredOn(image_shape=(1, 2, 3), threads=2)).warnings
    assert outliers.startswith(
        "13 of 120 runs, more than 10 %, are outliers (3 interquartile ranges off the quartiles)"
    )
    for spread, many in ((0.04, 13), (0.1, 12)):
        usual = WholeNetwork(configuration=(0, 0), use="outside", times=times(6.0, spread=spread, outliers=many))
        assert a_table(networks=(usual,)).warnings == ()
    steady = WholeNetwork(configuration=(0, 0), use="outside", times=times(6.0, spread=0.1, outliers=13))
    assert len(a_table(networks=(steady,)).warnings) == 1
    assert disturbed.startswith("half of each network's runs spread over 40 % of their median: the machine is busy")


def test_a_table_for_another_network_is_refused():
    table = a_table()
    a, b = table.modules
    table.check_fits(table)
    table.check_fits(a_table(modules=(a, ModuleTimes(module="b", pieces=b.pieces[:2]))))
    for other, said in [
        (a_table(modules=(a, ModuleTimes(module="c", pieces=b.pieces))), "it has no module c"),
        (a_table(modules=(a, b, ModuleTimes(module="c", pieces=b.pieces))), "it has no module c"),
        (a_table(modules=(a,), networks=(network((0,), "outside", 6.0),)), "it has the further module b"),
        (
            a_table(modules=(a, ModuleTimes(module="b", pieces=(*b.pieces, piece(0.6, 0))))),
            "lacks module b at rate 0.6: it has --rates 0.5,0.75 --skip",
        ),
        (a_table(modules=(a, ModuleTimes(module="b", pieces=(piece(0.0, 0, 19),)))), "has 19 multiply-accumulates, in"),
        (a_table(measured_on=MeasuredOn(image_shape=(3, 9, 8))), "is for images of 3x8x8 and not 3x9x8"),
    ]:
        with pytest.raises(WootzError, match=said):
            table.check_fits(other)


def test_a_table_is_the_same_when_it_is_read_back(tmp_path):
    table = a_table()
    table.save(tmp_path / "table.json")
    found = read_table(tmp_path / "table.json")
    assert found == table
    assert found.predict((0.5, 0.5)) == table.predict((0.5, 0.5))


def test_files_that_are_no_whole_table_are_refused_in_one_line(tmp_path):
    file = tmp_path / "table.json"

    def refusal(**changes):
        content = msgspec.to_builtins(a_table(**changes)) if "schema" not in changes else changes
        file.write_text(json.dumps(content))
        with pytest.raises(InputError) as error:
            read_table(file)
        assert str(error.value).startswith(f"{file}: ")
        return str(error.value).removeprefix(f"{file}: ")

    a, b = a_table().modules
    networks = a_table().networks
    assert refusal(schema=2) == "not a latency table that this version of wootz reads: schema 2, not 1"
    assert refusal(modules=(a, a)) == "two modules have one name"
    assert "no module z" in refusal(outside_inputs=("z",))
    assert refusal(networks=()) == refusal(networks=networks[1:]) == "the first of the networks is not the unpruned one"
    assert refusal(networks=(WholeNetwork(configuration=(0, 0), use="outside"),)).startswith("a whole network was not")
    assert refusal(networks=(*networks, network((0,), "fit", 1.0))) == "a network of 1 modules, of 2"
    assert "lacks module b at rate 0.25" in refusal(networks=(*networks, network((0, 0.25), "fit", 1.0)))
    unmeasured = ModuleTimes(module="b", pieces=(*b.pieces, piece(0.9, 0)))
    assert refusal(modules=(a, unmeasured)) == "b was not measured at rate 0.9"
    assert (
        refusal(modules=(a, ModuleTimes(module="b", pieces=(*b.pieces, b.pieces[1])))) == "two pieces of b are the same"
    )
    assert refusal(networks=(*networks, networks[1])) == "two of the whole networks are the same"
    nothing = Times(runs=20)
    assert refusal(networks=(WholeNetwork(configuration=(0, 0), use="outside", times=nothing),)) == (
        "a whole network takes 0 ms: nothing does"
    )
    backwards = Times(low_ms=2, median_ms=1, high_ms=3, runs=20)
    above = Times(low_ms=1, median_ms=4, high_ms=3, runs=20)
    more = Times(low_ms=1, median_ms=1, high_ms=1, runs=2, outliers=3)
    unrun = Times(low_ms=1, median_ms=1, high_ms=1)
    for odd, said in [
        (nothing, "b at rate 0.5 takes 0 ms: nothing does"),
        (backwards, "the median of b at rate 0.5, 1 ms, is outside of its quartiles, 2 to 3 ms"),
        (above, "the median of b at rate 0.5, 4 ms, is outside of its quartiles, 1 to 3 ms"),
        (more, "b at rate 0.5 has 3 outliers of 2 runs"),
    ]:
        pieces = (b.pieces[0], Piece(rate=0.5, macs=10, times=odd), b.pieces[2])
        assert refusal(modules=(a, ModuleTimes(module="b", pieces=pieces))) == said
    skipped = (*b.pieces, Piece(rate=SKIP, macs=0, times=unrun))
    assert refusal(modules=(a, ModuleTimes(module="b", pieces=skipped))) == "b has times at rate skip without a run"
    negative = msgspec.to_builtins(a_table())
    negative["networks"][0]["times"]["median_ms"] = -1.0
    assert "Expected `float` >= 0" in refusal(**negative)
    of_chain = ModuleTimes(module="b", pieces=(piece(0, 1.0, before=(0.5,)),))
    assert "b has 0 inputs" in refusal(modules=(a, of_chain))
    file.write_text("{")
    with pytest.raises(InputError, match="not a latency table, or damaged"):
        read_table(file)
    with pytest.raises(InputError, match="can't be read"):
        read_table(tmp_path / "missing.json")


def test_runs_take_turns_and_the_second_of_two_counts():
    """On a clock that only runs move: the first of two takes 9 ms, the second 2 or 4."""
    now, ran = [0.0], []

    def run(name, ms):
        second = len(ran) > 1 and len(ran) % 2 and ran[-1] == name
        ran.append(name)
        now[0] += (ms if second else 9.0) / 1000

    runs = [lambda: run("a", 2.0), lambda: run("b", 4.0)]
    a, b = take_turns(runs, 0.0, lambda: now[0], lambda: now[0])
    assert ran == ["a"] * WARM_UP + ["b"] * WARM_UP + ["a", "a", "b", "b"] * LEAST_ROUNDS
    assert a == pytest.approx([2.0] * LEAST_ROUNDS)
    assert b == pytest.approx([4.0] * LEAST_ROUNDS)


def test_rounds_go_on_for_as_long_as_they_may():
    now = [0.0]

    def run():
        now[0] += 0.01

    (few,) = take_turns([run], 1.0, lambda: 0.0, lambda: now[0])
    (most,) = take_turns([run], 1e9, lambda: 0.0, lambda: now[0])
    assert (len(few), len(most)) == (50, 200)


def test_the_processor_s_time_counts_where_one_thread_does_all(monkeypatch):
    assert clock_for("CUDAExecutionProvider", 1) == clock_for("CPUExecutionProvider", 2) == time.perf_counter
    monkeypatch.setattr(time, "get_clock_info", lambda name: SimpleNamespace(resolution=1e-9))
    assert clock_for("CPUExecutionProvider", 1) == time.thread_time
    monkeypatch.setattr(time, "get_clock_info", lambda name: SimpleNamespace(resolution=0.0156))
    assert clock_for("CPUExecutionProvider", 1) == time.perf_counter


def test_times_are_those_of_an_image_and_outliers_are_counted():
    ms = [10.0, *[12.0, 14.0] * 10, 60.0]
    found = summary(ms, images=2)
    quartiles = (found["low_ms"], found["median_ms"], found["high_ms"])
    assert quartiles == pytest.approx(np.percentile(ms, (25, 50, 75)) / 2)
    assert (found["runs"], found["outliers"]) == (22, 1)
    msgspec.convert(found, Times)
    assert summary([5.0] * 4, 1)["outliers"] == 0
    assert math.isfinite(summary([0.0] * 4, 1)["median_ms"])


@pytest.mark.parametrize(("left_out", "is_refused"), [("check", True), ("fit", True), ("", False)])
def test_a_table_without_networks_to_fit_to_or_check_by_is_refused(tmp_path, left_out, is_refused):
    """Where there are so many that measuring finds some."""
    rates = [k / 10 for k in range(9)]
    modules = tuple(ModuleTimes(module=m, pieces=tuple(piece(r, 3 - r, 20) for r in rates)) for m in "ab")
    networks = (network((0, 0), "outside", 6.0), *(network((r, r), "fit", 5 - r) for r in rates[1:5]),
                *(network((r, r), "check", 5 - r) for r in rates[5:]))  # fmt: skip
    a_table(modules=modules, networks=tuple(n for n in networks if n.use != left_out)).save(tmp_path / "table.json")
    if is_refused:
        with pytest.raises(InputError, match="it lacks the whole networks that predictions are fitted to"):
            read_table(tmp_path / "table.json")
    else:
        assert read_table(tmp_path / "table.json").error.networks == 4
