"""What is chosen where nobody says it: that it follows the data, the memory, the network and the effort."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wootz.passes.errors import WootzError
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.subspace import Subspace
from wootz.passes.pruning.rounding import Rounding
from wootz.runtime.defaults import (
    FINE_TUNING,
    LEAST_BATCH_SIZE,
    LEAST_STEPS,
    NETWORKS,
    RATES,
    Circumstances,
    default_subspace,
    fine_tuning_solver,
    fitting_batch_size,
    most_lost,
    networks_to_try,
    pretraining_solver,
    rounding,
    teacher_solver,
    test_interval,
    wanted_batch_size,
)

test_interval.__test__ = False
EFFORTS = st.sampled_from(["quick", "normal", "thorough"])
USUAL = Circumstances(training_images=2400, validation_images=600, batch_size=32, normalizes=True)

circumstances = st.builds(
    Circumstances,
    training_images=st.integers(1, 10**7),
    validation_images=st.integers(1, 10**6),
    batch_size=st.integers(1, 256),
    normalizes=st.booleans(),
    untrained=st.sampled_from(["none", "some", "all"]),
    effort=EFFORTS,
    scale=st.floats(1e-6, 1),
    seed=st.integers(0, 9),
)


@given(circumstances)
def test_solvers_mean_something_whatever_they_are_chosen_for(circumstances):
    for solver in (fine_tuning_solver, pretraining_solver, teacher_solver):
        chosen = solver(circumstances)
        assert not list(chosen.faults())
        assert chosen.max_iter >= LEAST_STEPS
        assert chosen.batch_size == circumstances.batch_size
        assert 0 < chosen.learning_rate(0) <= chosen.learning_rate(chosen.warmup_iter) == chosen.base_lr
        assert chosen.test_interval <= chosen.max_iter


@given(circumstances, st.floats(0.01, 1))
def test_a_smaller_scale_never_asks_for_more(circumstances, factor):
    smaller = Circumstances(**{**vars(circumstances), "scale": circumstances.scale * factor})
    for solver in (fine_tuning_solver, pretraining_solver, teacher_solver):
        assert solver(smaller).max_iter <= solver(circumstances).max_iter
    assert networks_to_try(smaller) <= networks_to_try(circumstances)


def test_more_effort_is_more_of_everything():
    quick, normal, thorough = (Circumstances(**{**vars(USUAL), "effort": e}) for e in ("quick", "normal", "thorough"))
    for solver in (fine_tuning_solver, pretraining_solver, teacher_solver):
        assert solver(quick).max_iter < solver(normal).max_iter < solver(thorough).max_iter
    assert [networks_to_try(c) for c in (quick, normal, thorough)] == list(NETWORKS.values())


def test_the_number_of_steps_follows_the_images_within_bounds():
    def steps(images, batch_size=32):
        return fine_tuning_solver(Circumstances(images, 100, batch_size, normalizes=True)).max_iter

    assert steps(10) == FINE_TUNING.least
    assert steps(10**7) == FINE_TUNING.most
    assert steps(10_000) == round(FINE_TUNING.epochs * 10_000 / 32) == pytest.approx(2 * steps(5_000), abs=1)
    assert steps(5_000, batch_size=16) == pytest.approx(2 * steps(5_000), abs=1)


def test_networks_that_normalise_nothing_and_small_batches_learn_slower():
    whole = fine_tuning_solver(USUAL).base_lr
    unnormalized = fine_tuning_solver(Circumstances(2400, 600, 32, normalizes=False))
    assert unnormalized.base_lr < whole
    assert unnormalized.clip_gradients > 0 > fine_tuning_solver(USUAL).clip_gradients
    assert pretraining_solver(Circumstances(2400, 600, 32, normalizes=False)).clip_gradients < 0, (
        "blocks are independent"
    )
    assert fine_tuning_solver(Circumstances(2400, 600, 8, normalizes=True)).base_lr == pytest.approx(whole / 4)


def test_all_of_a_network_is_trained_longer_than_a_part():
    some, everything = (Circumstances(**{**vars(USUAL), "untrained": u}) for u in ("some", "all"))
    assert teacher_solver(everything).max_iter > teacher_solver(some).max_iter


@given(st.integers(1, 10**5), st.integers(1, 512), st.integers(1, 10**6))
def test_tests_take_a_bounded_part_of_the_time(steps, batch_size, images):
    interval = test_interval(steps, batch_size, images)
    assert 1 <= interval <= steps
    assert interval == steps or images <= 0.25 * interval * batch_size * 3


def test_the_batch_is_halved_until_it_fits():
    def memory(size):
        return 100 + 10 * size

    assert fitting_batch_size(32, memory, None) == 32
    assert fitting_batch_size(32, memory, 420) == 32
    assert fitting_batch_size(32, memory, 419) == 16
    assert fitting_batch_size(3, memory, 130) == 3
    assert fitting_batch_size(5, memory, 140) == LEAST_BATCH_SIZE
    with pytest.raises(WootzError, match="a training step with 4 images takes"):
        fitting_batch_size(32, memory, 139)


@pytest.mark.parametrize(("images", "size"), [(1, 1), (3, 3), (17, 4), (40, 8), (100, 16), (128, 32), (10**6, 32)])
def test_a_batch_is_a_small_part_of_the_images(images, size):
    assert wanted_batch_size(images) == size


def least(names, whole=()):
    """The rate that stands for each rate, for modules of which some are not pruned."""
    return {name: {rate: 0.0 if name in whole else rate for rate in RATES} for name in names}


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 5), st.data())
def test_a_subspace_has_different_configurations_that_prune_what_can_be_pruned(modules, count, seed, data):
    names = [f"m{i}" for i in range(modules)]
    whole = data.draw(st.sets(st.sampled_from(names), max_size=modules - 1))
    subspace = default_subspace(least(names, whole), count, seed)
    found = subspace.configurations
    pruned = modules - len(whole)
    assert len(found) == len(set(found)) == min(count, len(RATES) ** pruned + (pruned > 1))
    for number, configuration in enumerate(found):
        if number == len(RATES) and pruned > 1:
            assert set(configuration) == {0, min(RATES)}
            continue
        for name, rate in zip(names, configuration, strict=True):
            assert rate == 0 if name in whole else rate in RATES
    smaller = default_subspace(least(names, whole), max(1, count - 3), seed).configurations
    assert smaller == found[: max(1, count - 3)]


def test_a_subspace_of_a_narrow_network_has_fewer_configurations():
    narrow = {"a": {0.3: 0.0, 0.5: 0.5, 0.7: 0.5}, "b": {0.3: 0.3, 0.5: 0.3, 0.7: 0.7}}
    found = default_subspace(narrow, 16, 0).configurations
    assert found[:3] == ((0.5, 0.7), (0.5, 0.3), (0.0, 0.3))
    assert set(found) == {(a, b) for a in (0.0, 0.5) for b in (0.3, 0.7)}
    with pytest.raises(WootzError, match="no module in which filters can be removed"):
        default_subspace({"a": dict.fromkeys(RATES, 0.0)}, 16, 0)


def test_a_subspace_reaches_from_the_smallest_to_the_largest():
    found = default_subspace(least(["a", "b", "c"]), 8, 0).configurations
    assert {*((rate,) * 3 for rate in RATES), (0.0, 0.3, 0.0)} <= set(found)


def test_nothing_to_prune():
    with pytest.raises(WootzError, match="no module in which filters can be removed"):
        default_subspace(least(["a", "b"], ["a", "b"]), 8, 0)


def test_counts_are_rounded_to_what_is_fast_or_to_what_one_says():
    subspace = Subspace(("a", "b"), ((0.3, 0.0), (0.3, (0.5, 0.7))))
    assert rounding(None, subspace.rates) == Rounding(8, (0.0, 0.3, 0.5, 0.7))
    assert rounding(3, subspace.rates) == Rounding(3)


def test_what_the_nearest_network_may_lose():
    own = Metric("own", higher_is_better=True, needs_training=True)
    assert most_lost(Metric.ACCURACY, 0.9) == 0.05
    assert most_lost(Metric.OUTPUT_ERROR, 0.0) == 0.1
    assert most_lost(own, 30.0) == most_lost(own, -30.0) == pytest.approx(3.0)
