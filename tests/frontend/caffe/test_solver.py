from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wootz.frontend.caffe.prototxt import parse_prototxt
from wootz.frontend.caffe.solver import parse_solver, print_solver, read_solver, solver_notes, write_solver
from wootz.passes.errors import InputError
from wootz.passes.plan.solver import LearningRatePolicy, Solver, SolverType

EXAMPLES = Path(__file__).parents[3] / "examples"
LEAST = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 1000 '


def parse(text: str) -> Solver:
    return parse_solver(parse_prototxt(text, "solver"))


def test_a_solver_of_caffe() -> None:
    solver = parse("""net: "train_val.prototxt" test_iter: 100 test_interval: 500 base_lr: 0.01 lr_policy: "multistep"
        gamma: 0.1 stepvalue: 5000 stepvalue: 7000 momentum: 0.9 weight_decay: 0.0005 regularization_type: "L1"
        display: 100 max_iter: 10000 snapshot: 5000 snapshot_prefix: "lenet" solver_mode: GPU type: "Nesterov"
        clip_gradients: 35 iter_size: 2 average_loss: 20 random_seed: 3""")
    assert solver == Solver(
        type=SolverType.NESTEROV,
        base_lr=0.01,
        lr_policy="multistep",
        gamma=0.1,
        stepvalue=(5000, 7000),
        momentum=0.9,
        weight_decay=0.0005,
        regularization_type="L1",
        display=100,
        max_iter=10000,
        snapshot=5000,
        snapshot_prefix="lenet",
        solver_mode="GPU",
        clip_gradients=35,
        iter_size=2,
        average_loss=20,
        random_seed=3,
        test_iter=100,
        test_interval=500,
    )


def test_what_is_not_given_has_the_default() -> None:
    assert parse(LEAST) == Solver(base_lr=0.1)


@pytest.mark.parametrize("name", ["SGD", "Nesterov", "Adam", "AdamW", "RMSProp", "AdaGrad", "AdaDelta"])
def test_types_by_name(name) -> None:
    assert parse(LEAST + f'type: "{name}"').type.value == name


@pytest.mark.parametrize(("written", "name"), [("ADAM", "Adam"), ("0", "SGD"), ("ADADELTA", "AdaDelta")])
def test_types_by_enumerator(written, name) -> None:
    assert parse(LEAST + f"solver_type: {written}").type.value == name


def test_fields_of_our_own() -> None:
    solver = parse(LEAST + 'batch_size: 8 data: "images" machines: 2 warmup_iter: 10')
    assert (solver.batch_size, solver.data, solver.machines, solver.warmup_iter) == (8, "images", 2, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('lr_policy: "fixed"', "solver:1:1: solver: the field 'base_lr' is missing"),
        (LEAST + "\n base_ir: 1", "solver:2:2: solver has a field 'base_ir' that is not understood: did you mean"),
        ('base_lr: 1 lr_policy: "stepp"', "solver:1:12: no lr_policy 'stepp': there are fixed, step, multistep"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1', "solver:1:12: lr_policy 'step' needs stepsize"),
        ('base_lr: 1 lr_policy: "inv" gamma: 0.1', "lr_policy 'inv' needs power"),
        ('base_lr: 1 lr_policy: "poly" power: 1', "lr_policy 'poly' needs max_iter"),
        (LEAST + 'type: "Adamax"', "no solver of type 'Adamax': there are SGD, Nesterov, Adam"),
        (LEAST + 'type: "SGD" solver_type: SGD', "type and solver_type exclude each other"),
        (LEAST + 'type: "AdaGrad" momentum: 0.9', "AdaGrad takes no momentum"),
        (LEAST + "momentum: 1", "momentum has to be at least 0 and less than 1"),
        (LEAST + "iter_size: 0", "iter_size has to be 1 or more"),
        (LEAST + "test_iter: 1 test_iter: 2", "several test_iter"),
        (
            LEAST + 'weights: "a.caffemodel"',
            "weights is not read: the weights are given on the command line",
        ),
        (LEAST + "net_param { }", "net_param is not read"),
        ('base_lr: -1 lr_policy: "fixed"', "base_lr can't be negative"),
        ('base_lr: 1 lr_policy: "multistep" gamma: 1 stepvalue: 5 stepvalue: 3', "the stepvalues have to ascend"),
    ],
)
def test_faults_are_named_with_their_place(text, message) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert message in str(error.value)


def test_fields_without_effect_are_reported(tmp_path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text('net: "a"\n' + LEAST + "\ndevice_id: 1")
    read_solver(file)
    assert [n.partition(": ")[2] for n in solver_notes(file)] == [
        "net has no effect: the network is the MODEL of the command line",
        "device_id has no effect: ONNX Runtime's provider chooses the device",
    ]


@pytest.mark.parametrize(
    "file", sorted(EXAMPLES.glob("*/*solver*.prototxt")) + sorted(EXAMPLES.glob("*/pretrain*")), ids=str
)
def test_the_examples_are_read(file) -> None:
    assert read_solver(file).max_iter > 0


def test_without_a_number_of_steps_nothing_is_trained_in_silence() -> None:
    with pytest.raises(InputError, match="max_iter is missing: Caffe would train for 0 steps"):
        parse('base_lr: 0.1 lr_policy: "fixed"')
    assert parse('base_lr: 0.1 lr_policy: "fixed" max_iter: 0').max_iter == 0


def test_the_warm_up_of_intels_caffe() -> None:
    """`(iter · base_lr + (warmup_iter - iter) · warmup_start_lr) / warmup_iter`, as GetWarmUpLR has it."""
    solver = parse(LEAST + "warmup_iter: 4 warmup_start_lr: 0.02")
    rates = [solver.learning_rate(step) for step in range(6)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])
    assert [parse(LEAST + "warmup_iter: 4").learning_rate(s) for s in range(4)] == pytest.approx(
        [0.025, 0.05, 0.075, 0.1]
    )
    for fields, message in (
        ("warmup_start_lr: 0.1", "needs warmup_iter"),
        ("warmup_iter: 2 warmup_start_lr: -1", "nega"),
    ):
        with pytest.raises(InputError, match=message):
            parse(LEAST + fields)


def test_what_only_concerns_tests_of_detectors_is_noted(tmp_path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text(LEAST + 'eval_type: "detection" ap_version: "11point" test_state { stage: "a" }')
    assert read_solver(file).max_iter == 1000
    names = [note.split(": ")[1].split()[0] for note in solver_notes(file)]
    assert names == ["eval_type", "ap_version", "test_state"]


NUMBERS = st.floats(0, 1e6, allow_nan=False)
BELOW_ONE = st.floats(0, 1, exclude_max=True)
COUNTS = st.integers(0, 2**31 - 1)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"))


@st.composite
def solvers(draw: st.DrawFn) -> Solver:
    """Any that has a meaning."""
    counted = ("max_iter", "snapshot", "test_iter", "test_interval", "display", "warmup_iter", "machines")
    fields = {name: draw(COUNTS) for name in counted}
    fields |= {name: draw(st.integers(1, 2**31 - 1)) for name in ("iter_size", "average_loss", "batch_size")}
    fields |= {name: draw(NUMBERS) for name in ("base_lr", "delta", "weight_decay")}
    fields |= {name: draw(BELOW_ONE) for name in ("momentum2", "rms_decay")}
    kind = draw(st.sampled_from(SolverType))
    takes_momentum = kind not in (SolverType.ADAGRAD, SolverType.RMSPROP)
    fields |= {
        "type": kind,
        "momentum": draw(BELOW_ONE) if takes_momentum else 0.0,
        "stepvalue": tuple(sorted(draw(st.sets(st.integers(1, 2**31 - 1), min_size=1, max_size=4)))),
        "regularization_type": draw(st.sampled_from(["L1", "L2"])),
        "clip_gradients": draw(st.floats(allow_nan=False, allow_infinity=False)),
        "lr_policy": draw(st.sampled_from(get_args(LearningRatePolicy))),
        "gamma": draw(NUMBERS),
        "power": draw(st.floats(0, 10, exclude_min=True)),
        "stepsize": draw(st.integers(1, 2**31 - 1)),
        "snapshot_prefix": draw(TEXTS),
        "data": draw(TEXTS),
        "random_seed": draw(st.integers(-(2**31), 2**31 - 1)),
        "solver_mode": draw(st.sampled_from(["CPU", "GPU"])),
        "warmup_start_lr": draw(st.none() | NUMBERS) if fields["warmup_iter"] else None,
    }
    fields["max_iter"] = max(1, fields["max_iter"])
    return Solver(**fields)


@given(solvers())
@example(Solver(lr_policy="inv"))
@example(Solver(lr_policy="step", stepsize=1))
def test_what_is_written_is_read_back(solver: Solver) -> None:
    assert parse(print_solver(solver, "why")) == solver


def test_a_written_file_is_short(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    write_solver(path, Solver(max_iter=7, momentum=0.9), "Fine-tuning.")
    assert read_solver(path) == Solver(max_iter=7, momentum=0.9)
    assert path.read_text().splitlines() == [
        "# Fine-tuning.",
        'type: "SGD"',
        "base_lr: 0.01",
        'lr_policy: "fixed"',
        "max_iter: 7",
        "momentum: 0.9",
        "batch_size: 32",
    ]
