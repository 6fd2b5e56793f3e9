import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.plan.transform import InputTransform
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.batches import training_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.session import Device, TrainingSession, WeightedSession
from wootz.runtime.training import HostSteps, diverged_losses, train

ONE_THREAD = Device(threads=1)


def run(network, split, solver, **options):
    session = TrainingSession(build_training_graph(network, solver), ONE_THREAD)
    batches = training_batches(
        split, InputTransform(channel_order="RGB"), solver.batch_size, solver.max_iter * solver.iter_size, seed=1
    )
    return session, train(HostSteps(session, batches, solver), solver, **options)


def test_training_learns_and_is_deterministic(network, split):
    solver = Solver(base_lr=0.1, momentum=0.9, max_iter=40, batch_size=16)
    first, history = run(network, split, solver)
    assert history.losses.shape == (40, 1)
    assert history.losses[-5:].mean() < 0.1 * history.losses[:5].mean()
    second, again = run(network, split, solver)
    np.testing.assert_array_equal(history.losses, again.losses)
    for name, values in first.weights().items():
        np.testing.assert_array_equal(values, second.weights()[name])


def test_two_threads_are_deterministic_too(network, split):
    """With as many threads, sums are taken in the same order."""
    solver = Solver(base_lr=0.05, momentum=0.9, max_iter=15, batch_size=16)
    curves = []
    for _ in range(3):
        session = TrainingSession(build_training_graph(network, solver), Device(threads=2))
        batches = training_batches(split, InputTransform(channel_order="RGB", mirror=True), 16, 15, seed=1)
        curves.append(train(HostSteps(session, batches, solver), solver).losses)
    np.testing.assert_array_equal(curves[0], curves[1])
    np.testing.assert_array_equal(curves[0], curves[2])


def test_running_statistics_are_weights_and_move(network, split):
    solver = Solver(base_lr=0.1, max_iter=3, batch_size=16)
    session = TrainingSession(build_training_graph(network, solver), ONE_THREAD)
    before = session.weights()
    assert {"bn.mean", "bn.variance", "conv.weight"} <= set(before)
    session.step(split.images[:16], split.labels[:16], 0.0)
    after = session.weights()
    assert not np.array_equal(before["bn.mean"], after["bn.mean"])
    np.testing.assert_array_equal(before["conv.weight"], after["conv.weight"])


def test_the_weighted_session_sees_the_weights_it_is_given(network, split):
    solver = Solver(base_lr=0.1, max_iter=20, batch_size=16)
    session, _ = run(network, split, solver)
    evaluator = WeightedSession(network, session.weights(), ONE_THREAD)
    untrained = evaluator.run(split.images)
    evaluator.set_weights(session.weights())
    trained = evaluator.run(split.images)
    assert np.mean(trained.argmax(1) == split.labels) > np.mean(untrained.argmax(1) == split.labels)


def test_two_batches_a_step_equal_one_of_twice_the_size(tmp_path, prototxt, split):
    lines = [line for line in prototxt.splitlines() if "BatchNorm" not in line]
    (tmp_path / "net.prototxt").write_text("\n".join(lines))
    network = import_caffe(tmp_path / "net.prototxt").model
    fields = {"base_lr": 0.1, "momentum": 0.9, "max_iter": 4}
    halves, _ = run(network, split, Solver(batch_size=8, iter_size=2, **fields))
    whole, history = run(network, split, Solver(batch_size=16, **fields))
    assert len(history.losses) == 4
    for name, values in whole.weights().items():
        np.testing.assert_allclose(halves.weights()[name], values, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_ends_the_training(network, split):
    broken = Split(split.images.copy(), split.labels)
    broken.images[:] = np.nan
    _, history = run(network, broken, Solver(base_lr=0.1, max_iter=5, batch_size=16))
    assert history.diverged == {"loss": 1}
    assert len(history.losses) == 1


def test_weights_that_the_last_step_spoils_are_found(network, split):
    """No loss tells of it: losses are those before the step."""
    session, history = run(network, split, Solver(base_lr=1e30, max_iter=2, batch_size=16))
    assert np.isfinite(history.losses).all()
    assert not np.isfinite(session.weights()["conv.weight"]).all()
    assert history.diverged == {"loss": 2}


def test_running_statistics_that_are_not_finite_are_found(network, split):
    session = TrainingSession(build_training_graph(network, Solver()), ONE_THREAD)
    assert diverged_losses(session) == set()
    session.write_slot("bn.variance", np.array([1, np.inf, 1, 1], np.float32))
    assert diverged_losses(session) == {"loss"}


def test_accuracy_is_measured_at_the_interval(network, split):
    measured = []
    solver = Solver(base_lr=0.1, max_iter=10, batch_size=16, test_interval=4)
    _, history = run(network, split, solver, measure=lambda: measured.append(0) or len(measured))
    assert history.qualities == ((4, 1), (8, 2))


def test_every_solver_type_lowers_the_loss(network, split):
    for kind in SolverType:
        rate = {SolverType.ADADELTA: 1.0, SolverType.ADAM: 0.01, SolverType.ADAMW: 0.01, SolverType.RMSPROP: 0.003}
        delta = 1e-6 if kind is SolverType.ADADELTA else 1e-8
        momentum = 0.0 if kind in (SolverType.RMSPROP, SolverType.ADAGRAD) else 0.9
        solver = Solver(
            type=kind, base_lr=rate.get(kind, 0.02), momentum=momentum, delta=delta, max_iter=30, batch_size=16
        )
        _, history = run(network, split, solver)
        assert history.losses[-5:].mean() < 0.8 * history.losses[:2].mean(), kind


class Rows:
    """Steps whose losses are known; those of a look at the device come at once."""

    names = ("a", "b")

    def __init__(self, losses, at_once):
        self._losses, self._at_once = np.array(losses, np.float32), at_once

    def advance(self, first, stop):
        return self._losses[first : min(stop, first + self._at_once)]

    def diverged(self):
        return set()


@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_one_loss_of_several_that_is_not_finite_stops_no_other(at_once):
    losses = [[1, 1], [np.nan, 2], [np.nan, 3], [np.nan, 4], [np.nan, np.inf], [np.nan, 6]]
    heard = []
    history = train(Rows(losses, at_once), Solver(max_iter=6), on_step=lambda done, _: heard.append(done))
    assert history.diverged == {"a": 2, "b": 5}
    assert len(history.losses) == 5
    assert heard == [1, 2, 3, 4]


def test_the_learning_rate_is_that_of_each_step(network, split):
    rates = []
    solver = Solver(base_lr=0.1, lr_policy="step", gamma=0.5, stepsize=2, max_iter=5, batch_size=16, iter_size=2)
    session = TrainingSession(build_training_graph(network, solver), ONE_THREAD)
    step = session.step
    session.step = lambda data, labels, rate, teacher: rates.append(rate) or step(data, labels, rate, teacher)
    batches = training_batches(split, InputTransform(channel_order="RGB"), 16, 10, seed=1)
    train(HostSteps(session, batches, solver), solver)
    np.testing.assert_allclose(rates, np.repeat([0.1, 0.1, 0.05, 0.05, 0.025], 2))
