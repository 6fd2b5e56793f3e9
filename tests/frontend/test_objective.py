"""The objective reader: the grammar, and where and how it complains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.frontend.objective import parse_objective, read_objective
from wootz.passes.errors import InputError
from wootz.passes.plan.metrics import METRICS, Metric
from wootz.passes.plan.objective import Constraint, Objective

SIZE, ACCURACY, FLOPS, LATENCY = Metric.MODEL_SIZE, Metric.ACCURACY, Metric.FLOPS, Metric.LATENCY
AGREEMENT, OUTPUT_ERROR = Metric.AGREEMENT, Metric.OUTPUT_ERROR

PARSED = {
    "min ModelSize constraint Accuracy > 0.8": Objective("min", SIZE, (Constraint(ACCURACY, ">", 0.8),)),
    "min ModelSize\nconstraint Accuracy > 0.8\n": Objective("min", SIZE, (Constraint(ACCURACY, ">", 0.8),)),
    "# smallest\r\n min\tModelSize # of all\n\n": Objective("min", SIZE),
    "max Accuracy constraint ModelSize<=5e6 constraint FLOPs < .5e9 constraint Latency >= 2.": Objective(
        "max",
        ACCURACY,
        (Constraint(SIZE, "<=", 5e6), Constraint(FLOPS, "<", 0.5e9), Constraint(LATENCY, ">=", 2)),
    ),
    "min FLOPs constraint Agreement >= 97%": Objective("min", FLOPS, (Constraint(AGREEMENT, ">=", 0.97),)),
    "min Latency constraint OutputError <= 0.02": Objective("min", LATENCY, (Constraint(OUTPUT_ERROR, "<=", 0.02),)),
    "min FLOPs constraint Accuracy >= full": Objective("min", FLOPS, (Constraint(ACCURACY, ">=", 0, scale=1),)),
}

BOUNDS = {
    "full - 0.01": (1, -0.01),
    "full-1%": (1, -0.01),
    "full + 2%": (1, 0.02),
    "0.99 * full": (0.99, 0),
    "99% * full": (0.99, 0),
    "full * 0.99": (0.99, 0),
    "full * 99% - 0.5%": (0.99, -0.005),
    "0.9*full+0.01": (0.9, 0.01),
    "80%": (0, 0.8),
    "1": (0, 1),
}

REFUSED = {
    "": ":1:1: expected 'min' or 'max', found the end",
    "minimise ModelSize": ":1:1: expected 'min' or 'max', found 'minimise'",
    "Min ModelSize": ":1:1: expected 'min' or 'max', found 'Min'; did you mean 'min'?",
    "min": ":1:4: expected a metric (NAMES), found the end",
    "min modelsize": ":1:5: expected a metric (NAMES), found 'modelsize'; did you mean 'ModelSize'?",
    "max ACURACY": ":1:5: expected a metric (NAMES), found 'ACURACY'; did you mean 'Accuracy'?",
    "min energy": ":1:5: expected a metric (NAMES), found 'energy'",
    "min size": ":1:5: expected a metric (NAMES), found 'size'; did you mean 'ModelSize'?",
    "min ModelSize\n  constrain Accuracy > 1": ":2:3: expected 'constraint' or the end, found 'constrain'; "
    "did you mean 'constraint'?",
    "min ModelSize max Accuracy": ":1:15: expected 'constraint' or the end, found 'max'; "
    "an objective has a single metric to optimise",
    "min ModelSize constraint Accuracy": ":1:34: expected one of < <= > >=, found the end",
    "min ModelSize constraint Accuracy = 0.8": ":1:35: expected one of < <= > >=, found '='",
    "min ModelSize constraint Accuracy >": ":1:36: expected a number or 'full' (the unpruned network's value), "
    "found the end",
    "min ModelSize constraint Accuracy > Full": ":1:37: expected a number or 'full' (the unpruned network's value), "
    "found 'Full'; did you mean 'full'?",
    "min ModelSize constraint Accuracy > -0.1": ":1:37: expected a number or 'full' (the unpruned network's value), "
    "found '-'",
    "min ModelSize constraint Accuracy > full -": ":1:43: expected a number, found the end",
    "min ModelSize constraint Accuracy > full * full": ":1:44: expected a number, found 'full'",
    "min ModelSize constraint Accuracy > 80": ":1:37: Accuracy lies between 0 and 1, 80 doesn't; 80 % is 0.8 or 80%",
    "max Accuracy constraint ModelSize < 5M": ":1:38: expected 'constraint' or the end, found 'M'",
    "max Accuracy constraint ModelSize < 80%": ":1:37: 80% of what? A part of the unpruned network's is 0.8 * full",
    "min FLOPs constraint Accuracy >= full - 1": ":1:41: 1 is 100 points of accuracy: one point is 0.01 or 1%",
    "min ModelSize constraint Agreement > 97": ":1:38: Agreement lies between 0 and 1, 97 doesn't; 80 % is 0.8 or 80%",
    "max Accuracy constraint ModelSize < 9 constraint Agreement > 0.9": ":1:50: Accuracy and Agreement both need "
    "training: an objective names one",
    "max Accuracy constraint FLOPs < full - 5%": ":1:40: 5% of what? A part of the unpruned network's is 0.05 * full",
}


@pytest.mark.parametrize(("text", "objective"), PARSED.items())
def test_objectives(text, objective):
    assert parse_objective(text) == objective


@pytest.mark.parametrize(("text", "bound"), BOUNDS.items())
def test_bounds(text, bound):
    (constraint,) = parse_objective(f"min ModelSize constraint Accuracy > {text}").constraints
    assert (constraint.scale, constraint.offset) == pytest.approx(bound, abs=1e-15)


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_refusals(text, message):
    with pytest.raises(InputError) as refused:
        parse_objective(text, "goal.txt")
    assert str(refused.value) == f"goal.txt{message}".replace("NAMES", ", ".join(METRICS))


numbers = st.floats(0, 1e12, allow_nan=False)
scales = st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-3, 10))


KNOWN = tuple(METRICS.values())


@st.composite
def constraints(draw):
    metric, scale = draw(st.sampled_from(KNOWN)), draw(scales)
    accuracies = st.floats(0, 1, exclude_max=scale > 0)
    offset = draw(accuracies if metric.is_share else numbers)
    sign = draw(st.sampled_from([1, -1])) if scale and offset else 1
    return Constraint(metric, draw(st.sampled_from(["<", ">", "<=", ">="])), sign * offset, scale)


def named(objective):
    return (objective.metric, *(c.metric for c in objective.constraints))


objectives = st.builds(
    Objective,
    st.sampled_from(["min", "max"]),
    st.sampled_from(KNOWN),
    st.lists(constraints(), max_size=4).map(tuple),
).filter(lambda objective: len({m for m in named(objective) if m.needs_training}) <= 1)


@given(objectives)
def test_the_text_of_an_objective_is_read_back(objective):
    assert parse_objective(str(objective)) == objective


@given(st.text(max_size=60) | st.text("minax constraintAuyModelSzFLOP<>=0.8*full+-%#\n", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text):
    outcome = []
    try:
        outcome.append(str(parse_objective(text)))
    except InputError as refused:
        outcome.append(str(refused))
    assert "\n" not in outcome[0]


def test_further_metrics_are_named_as_the_known_ones_are():
    miou = Metric("mean_iou", higher_is_better=True, needs_training=True)
    objective = parse_objective("max mean_iou constraint mean_iou > full - 2", metrics={**METRICS, "mean_iou": miou})
    assert objective == Objective("max", miou, (Constraint(miou, ">", -2, 1),))
    assert (objective.quality, objective.wants_quality) == (miou, True)
    with pytest.raises(InputError, match="expected a metric"):
        parse_objective(str(objective))


@pytest.mark.parametrize(
    ("text", "asks"), [("Accuracy >= 0.5", True), ("OutputError < 0.5", True), ("OutputError > 0.5", False)]
)
def test_a_bound_asks_for_quality_from_below_or_from_above(text, asks):
    (bound,) = parse_objective(f"min ModelSize constraint {text}").bounds_of_quality
    assert bound.asks_for_quality == asks


def test_files(tmp_path):
    path = tmp_path / "objective.txt"
    path.write_text("min ModelSize\nconstraint Accuracy >= full - 0.01\n")
    assert read_objective(path) == Objective("min", SIZE, (Constraint(ACCURACY, ">=", -0.01, 1),))
    path.write_text("min ModelSize\n", encoding="utf-8-sig")
    assert read_objective(path) == Objective("min", SIZE)
    path.write_bytes(b"min \xff")
    with pytest.raises(InputError, match=r"objective.txt: not a text in UTF-8"):
        read_objective(path)
    with pytest.raises(InputError, match=r"missing.txt: can't be read: No such file"):
        read_objective(tmp_path / "missing.txt")


def test_bounds_are_relative_to_the_unpruned_network():
    (constraint,) = parse_objective("min ModelSize constraint Accuracy >= full - 0.01").constraints
    assert constraint.holds({ACCURACY: 0.92}, full={ACCURACY: 0.925})
    assert not constraint.holds({ACCURACY: 0.91}, full={ACCURACY: 0.925})


def test_a_metric_that_may_be_negative_has_negative_bounds():
    closeness = Metric("closeness", higher_is_better=True, needs_training=True)
    metrics = {**METRICS, "closeness": closeness}
    objective = parse_objective("min ModelSize constraint closeness >= -0.5", metrics=metrics)
    assert objective.constraints == (Constraint(closeness, ">=", -0.5),)
    assert parse_objective(str(objective), metrics=metrics) == objective
