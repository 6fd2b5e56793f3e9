"""The whole job on a small network, in one process: which data, solvers and networks it takes for what."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from wootz.frontend.objective import parse_objective
from wootz.passes import pipeline
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.ir.model import constants, with_weights
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning import block_pruner
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime import plan as plan_module
from wootz.runtime import run as run_module
from wootz.runtime.data.dataset import Split
from wootz.runtime.delivery import delivered
from wootz.runtime.events import EventLog, PhaseStarted, Progress, TaskEnded, TaskId, read_events
from wootz.runtime.executors.shares import shared_machine
from wootz.runtime.executors.this_process import ThisProcess
from wootz.runtime.outcome import Failed, Trained
from wootz.runtime.reporting.timeline import timeline
from wootz.runtime.result import FailedNetworkResult, RunResult, TrainedBlockResult, UntriedNetworkResult, block_text
from wootz.runtime.run import run
from wootz.runtime.status import read_status, status_of
from wootz.runtime.store import Store
from wootz.runtime.store.inventory import holdings
from wootz.runtime.tasks import workshop as workshop_module
from wootz.runtime.tasks.perform import Site, perform, provide
from wootz.runtime.tasks.task import FineTuneFull, Finished
from wootz.runtime.tasks.trainer import Trainer
from wootz.runtime.tasks.workshop import Workshop
from wootz.runtime.watch import Watch

CONFIGURATIONS = ((0.5, 0.0), (0.5, 0.5), (0.75, 0.5), (0.75, 0.0))
TRANSFORM = InputTransform(channel_order="RGB")


def test_selection_is_by_validation_and_the_report_has_the_test_images_too(job, finished):
    found = finished(replace(job, baseline=True))
    assert found.full.quality > 0.95
    assert found.full.test_quality < 0.3
    for exploration in (found.block_trained, found.baseline):
        assert exploration.best.quality == max(n.quality for n in exploration.trained) > 0.95
        assert exploration.best.test_quality < 0.3
    assert RunResult.load(job.out) == found


def test_training_graphs_are_printed_and_verified_where_that_is_asked_for(job, capfd, monkeypatch, finished):
    verified = []
    monkeypatch.setattr(pipeline, "verify", verified.append)
    finished(replace(job, subspace=replace(job.subspace, configurations=CONFIGURATIONS[:2])))
    assert capfd.readouterr().err == ""
    assert not verified
    watched = replace(job, out=job.out / "again", print_ir_after=("teacher-student", "legalize"), verify_each=True)
    finished(replace(watched, subspace=replace(job.subspace, configurations=CONFIGURATIONS[:2])))
    printed = capfd.readouterr().err
    graphs = printed.split("# ----- IR after ")[1:]
    assert {graph.partition(" ")[0] for graph in graphs} == {"teacher-student", "legalize"}
    assert all("wootz.training" in graph for graph in graphs if graph.startswith("legalize"))
    assert len(verified) > len(graphs)


def test_a_store_that_is_too_small_forgets_nothing_that_the_run_needs(job):
    """Neither what its driver uses, nor what a worker has put and its driver hasn't seen yet."""
    notes = []
    job.out.mkdir()
    store = Store.open(job.out / "store", limit=1, note=notes.append)
    site = Site.of(job, store)
    this_process = ThisProcess(shared_machine(1, 1)[0], partial(perform, site), job.out / "logs")
    with store.using("a run"), this_process as engine, EventLog(job.out / "events.jsonl") as log:
        found = run(Workshop(job, store), engine, "this process", Watch(log, job))
        assert (found.reuse.teacher, found.reuse.blocks, found.reuse.networks) == (False, 0, 0)
        kept = [holding.entry.what for holding in holdings(store)]
        assert sum(what.startswith("block-trained network") for what in kept) == len(found.block_trained.trained) == 4
    assert "are in use, more than the limit of 1 B" in notes[0]
    provide(replace(site, run=job.out / "another"), Workshop(job, store))
    store.collect()
    assert holdings(store) == []


def test_each_training_has_its_solver_and_blocks_that_are_not_pruned_none(job, monkeypatch, finished):
    trained = []
    fine_tune, pretrain = Trainer.fine_tune, Trainer.pretrain

    def watch_networks(self, model, solver, title, *rest, **options):
        trained.append((" ".join(title.split()[:2]), solver.random_seed))
        return fine_tune(self, model, solver, title, *rest, **options)

    def watch_blocks(self, pruner, keys, solver, title):
        trained.extend((f"block {block}", solver.random_seed) for block in keys)
        return pretrain(self, pruner, keys, solver, title)

    monkeypatch.setattr(Trainer, "fine_tune", watch_networks)
    monkeypatch.setattr(Trainer, "pretrain", watch_blocks)
    found = finished(replace(job, baseline=True))
    blocks = [("block 1(0.5)", 3), ("block 1(0.75)", 3), ("block 2(0.5)", 3)]
    networks = [*[("block-trained network", 2)] * 4, *[("default network", 2)] * 4]
    assert trained == [("the full", 1), ("the full", 2), *blocks, *networks]
    assert [(block_text(b.symbols, found.modules), type(b), b.networks) for b in found.blocks] == [
        ("1(0.5)", TrainedBlockResult, 2), ("1(0.75)", TrainedBlockResult, 2), ("2(0.5)", TrainedBlockResult, 2),
    ]  # fmt: skip


def test_a_network_that_comes_with_its_weights_is_not_trained(job, finished):
    weights = {name: w for name, w in constants(job.network.graph).items() if name.endswith("weight")}
    given = replace(job, network=with_weights(job.network, weights), untrained=())
    found = finished(given)
    assert (found.full.seconds, found.full.curve) == (0.0, ())
    teacher = constants(load(job.out / "teacher.onnx").graph)
    assert all(np.array_equal(teacher[name], values) for name, values in weights.items())


@pytest.mark.parametrize("reference", ["given", "tuned", "better"])
def test_full_in_the_objective_is_the_network_as_it_was_or_fine_tuned_as_the_others_are(job, reference, finished):
    found = finished(replace(job, objective=parse_objective("min ModelSize constraint Accuracy >= full - 0.3"),
                             reference=reference))  # fmt: skip
    (bound,), full = found.objective.constraints, found.full
    assert (full.tuned is None) == (reference == "given")
    tuned = full.quality if full.tuned is None else full.tuned.quality
    meant = {"given": full.quality, "tuned": tuned, "better": max(full.quality, tuned)}[reference]
    assert bound.bound == pytest.approx(meant - 0.3)
    if full.tuned is not None:
        assert full.tuned.steps == job.solver.max_iter
        assert full.tuned.curve[0][1] == full.quality
        assert full.tuned.curve[-1][1] == full.tuned.quality


def test_a_fine_tuning_of_the_full_network_that_diverges_is_told_and_the_run_goes_on(job, monkeypatch, finished):
    fine_tune = Trainer.fine_tune

    def fail(self, model, solver, title, *rest, **options):
        if title == str(FineTuneFull()):
            return Finished("", Failed("diverged at step 3"))
        return fine_tune(self, model, solver, title, *rest, **options)

    monkeypatch.setattr(Trainer, "fine_tune", fail)
    found = finished(job)
    assert (found.full.tuned, found.full.reference) == (None, "given")
    assert any("fine-tuning failed: diverged at step 3" in note for note in found.notes)
    assert found.best is not None


def test_a_full_network_that_learned_nothing_ends_the_run_before_blocks_are_trained(job, monkeypatch, finished):
    trained = []
    monkeypatch.setattr(Trainer, "pretrain", lambda *arguments: trained.append(arguments))
    shuffled = Split(job.dataset.train.images, np.random.default_rng(0).permutation(job.dataset.train.labels))
    dataset = replace(job.dataset, train=shuffled, validation=shuffled)
    deaf = replace(job, dataset=dataset, teacher_solver=replace(job.teacher_solver, base_lr=1e-6), may_guess=False)
    with pytest.raises(WootzError, match=r"the full network, trained from scratch, only guesses: .*--allow-untrained"):
        finished(deaf)
    assert not trained
    monkeypatch.undo()
    told = finished(replace(deaf, may_guess=True))
    assert any("only guesses" in note for note in told.notes)
    assert told.best is not None
    assert finished(replace(job, may_guess=False, out=job.out / "seeing")).full.quality > 0.95


def test_bounds_relative_to_the_full_network_are_checked_when_it_is_known(job, monkeypatch, finished):
    monkeypatch.setattr(Trainer, "pretrain", lambda *_: pytest.fail("too late"))
    objective = parse_objective("min ModelSize constraint Accuracy > full + 0.2", "test")
    with pytest.raises(WootzError, match="Accuracy lies between 0 and 1"):
        finished(replace(job, objective=objective))


def test_the_smallest_that_is_good_enough_ends_the_exploration_and_is_written(job, finished):
    objective = parse_objective("min ModelSize constraint Accuracy >= full - 0.1", "test")
    found = finished(replace(job, objective=objective, keeps_batchnorm=True))
    written = load(job.out / "best.onnx").graph
    trained = ("weight", "bias", "scale")
    assert sum(w.size for n, w in constants(written).items() if n.split(".")[-1] in trained) == found.best.model_size
    assert found.best.configuration == (0.75, 0.5), "the smallest comes first"
    assert [type(n) for n in found.networks[1:]] == [UntriedNetworkResult] * 3, "it ends the exploration"


@pytest.mark.parametrize(("given", "most_lost", "is_taken"), [(True, 1, False), (False, 1, True), (False, -1, False)])
def test_an_objective_that_nobody_gave_is_missed_rather_than_nothing_found(
    job, finished, given, most_lost, is_taken, monkeypatch
):
    objective = parse_objective("min ModelSize constraint Accuracy < 0.9", "test")  # all have more
    monkeypatch.setattr(run_module, "default_objective", lambda quality: objective)
    monkeypatch.setattr(run_module, "most_lost", lambda quality, of_full: most_lost)
    found = finished(replace(job, objective=objective, chosen={} if given else {"objective.txt": b""}))
    assert (found.best is not None) == is_taken == (job.out / "best.onnx").exists()
    lost = found.full.quality - max(network.quality for network in found.block_trained.trained)
    notes = [note for note in found.notes if note.startswith("None of the 4 networks meets 'min ModelSize")]
    assert [f"loses {100 * lost:.1f} points" in note for note in notes] == [True] * is_taken
    assert (read_status(job.out).best is not None) == is_taken
    if is_taken:
        assert found.best.quality == found.full.quality - lost


def test_a_pruned_network_that_is_wrong_is_found_before_anything_is_trained(job, monkeypatch, finished):
    """The materialiser is made to break what it gives."""
    materialize = BlockPruner.materialize

    def broken(self, plan):
        model = materialize(self, plan)
        return with_weights(model, {"a1.weight": -constants(model.graph)["a1.weight"]}) if plan.is_pruned else model

    monkeypatch.setattr(BlockPruner, "materialize", broken)
    monkeypatch.setattr(Trainer, "fine_tune", lambda *_: pytest.fail("it is trained"))
    with pytest.raises(WootzError, match=r"configuration \[0.5, 0\]: the pruned network is not the original"):
        finished(job)


def test_without_the_check_it_is_not_looked_at_and_a_later_failure_is_a_result(job, monkeypatch, finished):
    def fail(*arguments):
        raise WootzError("it differs")

    rehearsed = []
    monkeypatch.setattr(plan_module, "representatives", lambda configurations: rehearsed)
    monkeypatch.setattr(workshop_module, "check_pruned", fail)
    found = finished(job)
    assert {type(n) for n in found.networks} == {FailedNetworkResult}
    assert found.best is None
    assert finished(replace(job, checks_pruned=False, out=job.out / "other")).best is not None


def test_of_networks_that_differ_in_sizes_alone_one_takes_a_step_before_the_run(job, monkeypatch, finished):
    built, stepped = [], []
    check, rehearse = plan_module.rehearse_delivery, Trainer.rehearse

    def step(self, model, *rest):
        stepped.append(model)
        return rehearse(self, model, *rest)

    monkeypatch.setattr(plan_module, "rehearse_delivery", lambda *given: built.append(given[1]) or check(*given))
    monkeypatch.setattr(Trainer, "rehearse", step)
    sizes = tuple((rate, rate) for rate in (0.25, 0.5, 0.75))
    finished(replace(job, subspace=replace(job.subspace, configurations=sizes)))
    pruned = [model for model in stepped if any(model is of for of in built)]
    assert (len(built), len(pruned)) == (3, 1)


@pytest.mark.parametrize("criterion", ["apoz", "taylor"])
def test_criteria_that_look_at_data_see_training_images_prepared_for_testing(job, criterion, monkeypatch, finished):
    seen = []
    with_weights = workshop_module.BlockPruner.with_weights

    def watch(self, weights, criterion=None, sample=None):
        seen.append((self.planner.criterion, criterion, sample))
        return with_weights(self, weights, criterion, sample)

    monkeypatch.setattr(workshop_module.BlockPruner, "with_weights", watch)
    found = finished(replace(job, criterion=criterion, test_transform=replace(TRANSFORM, scale=(0.5,))))
    assert found.block_trained.trained
    ((untrained, trained, sample),) = seen
    assert (untrained, trained) == ("l1", criterion)
    np.testing.assert_array_equal(sample.feeds["labels"], job.dataset.train.labels)
    np.testing.assert_allclose(sample.feeds["data"], job.dataset.train.images * np.float32(0.5))


def test_the_events_of_a_run_say_what_its_result_says(job, finished):
    found = finished(replace(job, baseline=True, solver=replace(job.solver, test_interval=5)))
    events = list(read_events(job.out / "events.jsonl"))
    status = status_of(events)
    assert (status.blocks, status.of("blocks").tasks) == (len(found.blocks), len(found.groups))
    for kind, exploration in (("network", found.block_trained), ("default network", found.baseline)):
        assert status.of(kind).tasks == exploration.networks_evaluated
        ended = {e.task.index: e for e in events if isinstance(e, TaskEnded) and e.task.kind == kind}
        for network in exploration.trained:
            event = ended[network.index]
            assert (event.quality, event.ended) == (network.curve[-1][1], network.ended)
            assert event.steps_saved == network.steps_saved
            told = [e for e in events if isinstance(e, Progress) and e.task == TaskId(kind, network.index)]
            tests = [(e.step, e.quality) for e in told if e.quality is not None]
            assert tests
            assert set(tests) <= set(network.curve)
    assert (status.best.index, status.best.quality) == (found.best.index, found.best.quality)
    assert [e.phase for e in events if isinstance(e, PhaseStarted)] == [
        "plan", "teacher", "pretraining", "exploration", "baseline", "delivery"
    ]  # fmt: skip
    assert len(timeline(events).spans) == 2 + len(found.groups) + 2 * found.networks_evaluated


def test_a_run_that_is_continued_computes_nothing_again_and_says_so(job, finished):
    first = finished(job)
    assert finished(job).best == first.best
    events = list(read_events(job.out / "events.jsonl"))
    status = status_of(events)
    assert status.attempt == 2
    assert all(done.computed == 0 and done.reused == done.tasks for done in status.done.values())
    ended = [event.reused for event in events if isinstance(event, TaskEnded)]
    assert ended == [False] * (len(ended) // 2) + [True] * (len(ended) // 2)


@pytest.mark.parametrize(("is_trained", "carved"), [(False, 2 * 3), (True, 3)])
def test_each_student_is_carved_once_and_none_where_all_is_known(job, is_trained, carved, monkeypatch, finished):
    """Training the full network changes which filters a student keeps: those by which the groups were made are others.

    A group's memory, its key and its training ask for the same students.
    """
    seen = []
    carve = block_pruner.carve
    monkeypatch.setattr(block_pruner, "carve", lambda model, *rest: seen.append(model) or carve(model, *rest))
    job = replace(job, memory_budget=10**9, untrained=() if is_trained else job.untrained)
    first = finished(job)
    assert len(first.blocks) == 3
    assert len(seen) == carved
    assert finished(job).best == first.best
    assert len(seen) == carved


@pytest.mark.parametrize(("kept", "is_told"), [((0, 0, 0), True), ((0, 0), False), ((0, 20, 0), False)])
def test_fine_tunings_that_gain_nothing_are_told(kept, is_told):
    outcomes = [Trained({}, {"kept": step, "steps": 20}) for step in kept]
    outcomes += [Failed("it diverged"), Trained({}, {"kept": 0, "steps": 0})]
    explored = SimpleNamespace(networks=dict(enumerate(SimpleNamespace(outcome=o) for o in outcomes)))
    told = []
    run_module._note_useless_training(explored, SimpleNamespace(note=told.append))
    assert [note.startswith("None of the 3 fine-tunings made its network better") for note in told] == [True] * is_told


def test_full_and_pruned_network_are_timed_in_the_same_form(job, finished, monkeypatch):
    opened = []
    open_file = delivered.open_file
    monkeypatch.setattr(delivered, "open_file", lambda file, *rest: opened.append(load(file)) or open_file(file, *rest))
    measure = delivered.side_by_side
    timed = []
    monkeypatch.setattr(
        delivered, "side_by_side", lambda runs, images: timed.append(opened[-2:]) or measure(runs, images)
    )
    finished(job)
    ((full, best),) = timed
    assert [node.op for node in full.graph.nodes] == [node.op for node in best.graph.nodes]
    assert "BatchNormalization" in {node.op for node in load(job.out / "teacher.onnx").graph.nodes}
