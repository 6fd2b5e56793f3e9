"""What a run is expected to take follows from what it trains, and from the speed of the full network."""

from dataclasses import replace
from pathlib import Path

import pytest

from wootz.passes.analysis.modules import find_modules
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime.expected_time import Trainings, expected_time
from wootz.runtime.speed import Speed
from wootz.runtime.survey import one_group, survey_subspace
from wootz.tools.models import open_network

SPEED = Speed(step=0.5, batch_size=16, image=0.01, prepare=2.0)
TRAININGS = Trainings(
    teacher=None,
    solver=Solver(max_iter=100, batch_size=32, test_interval=50),
    pretrain_solver=Solver(max_iter=200, batch_size=32),
    tunes=False,
    explorations=1,
    validation_images=40,
)


@pytest.fixture(scope="module")
def pruner():
    network = open_network(str(Path(__file__).parents[2] / "examples" / "digits" / "net.prototxt")).model
    return BlockPruner.of(replace(network, modules=find_modules(network)[0]))


def expected(pruner, rows, trainings=TRAININGS, speed=SPEED):
    subspace = Subspace(tuple(module.name for module in pruner.modules), tuple(rows))
    return expected_time(survey_subspace(pruner, subspace, "maximal", one_group), trainings, speed)


SHARED = ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.7, 0.7), (0.7, 0.7, 0.5, 0.5))


def test_the_full_network_takes_its_steps_and_tests(pruner):
    found = expected(pruner, SHARED, replace(TRAININGS, teacher=Solver(max_iter=10, batch_size=16, test_interval=5)))
    assert found.teacher == pytest.approx(2.0 + 10 * 0.5 + 3 * 40 * 0.01)
    assert expected(pruner, SHARED).teacher == 0
    tuned = expected(pruner, SHARED, replace(TRAININGS, tunes=True)).teacher
    assert tuned == pytest.approx(2.0 + 100 * 2 * 0.5 + 3 * 40 * 0.01)


def test_pruned_networks_take_less_than_the_full_one_but_not_as_little_as_they_compute(pruner):
    full = 2.0 + 100 * 2 * 0.5 + 3 * 40 * 0.01
    small, large = (expected(pruner, [(rate,) * 4]).networks for rate in (0.7, 0.3))
    assert 0.3 * full < small < large < full


def test_a_full_network_that_teaches_runs_beside_those_that_learn(pruner):
    teaching = replace(TRAININGS, tunes=True, learns_from_full=True)
    alone = expected(pruner, SHARED, replace(TRAININGS, tunes=True))
    taught = expected(pruner, SHARED, teaching, replace(SPEED, step=SPEED.step + 16 * 0.01, runs_teacher=True))
    assert taught.networks == pytest.approx(alone.networks + 3 * 100 * 32 * 0.01)
    assert taught.teacher == pytest.approx(alone.teacher + 100 * 32 * 0.01)
    assert taught.blocks == pytest.approx(alone.blocks)


@pytest.mark.parametrize("measured", [replace(SPEED, step=SPEED.step + 16 * 0.01, runs_teacher=True), SPEED])
def test_a_full_network_that_is_asked_once_for_each_image_runs_on_each_once(pruner, measured):
    alone = expected(pruner, SHARED, replace(TRAININGS, tunes=True))
    teaching = replace(TRAININGS, tunes=True, learns_from_full=True, examples_once=500)
    taught = expected(pruner, SHARED, teaching, measured)
    assert taught.networks == pytest.approx(alone.networks + 500 * 0.01)
    assert taught.teacher == pytest.approx(alone.teacher)


def test_twice_the_networks_and_a_baseline_take_twice_the_time(pruner):
    three, six = expected(pruner, SHARED), expected(pruner, (*SHARED, *((*row[:3], 0.3) for row in SHARED)))
    assert three.networks < six.networks < 2.5 * three.networks
    assert expected(pruner, SHARED, replace(TRAININGS, explorations=2)).networks == pytest.approx(2 * three.networks)


def test_a_single_network_shares_no_blocks(pruner):
    assert expected(pruner, SHARED[:1]).blocks == 0
    assert expected(pruner, SHARED).blocks > 0


def test_a_slower_machine_takes_longer_in_every_phase(pruner):
    slower = Speed(step=1.0, batch_size=16, image=0.02, prepare=4.0)
    trainings = replace(TRAININGS, teacher=Solver(max_iter=10))
    once, twice = (expected(pruner, SHARED, trainings, speed) for speed in (SPEED, slower))
    for phase in ("plan", "teacher", "blocks", "networks", "total"):
        assert getattr(twice, phase) == pytest.approx(2 * getattr(once, phase))
