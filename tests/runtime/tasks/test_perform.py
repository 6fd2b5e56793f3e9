"""Workers that outlive a run: each does the job whose order it gets, and stores under keys that it finds itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.objective import parse_objective
from wootz.passes.errors import StorageError
from wootz.passes.ir.model import constants
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.subspace import Subspace
from wootz.passes.plan.transform import InputTransform
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.executors.control import Control
from wootz.runtime.executors.shares import shared_machine
from wootz.runtime.job import Job
from wootz.runtime.session import Device
from wootz.runtime.store import Store
from wootz.runtime.tasks.perform import Site, perform
from wootz.runtime.tasks.task import LookAt, Order, PretrainBlocks, TrainTeacher, steps_saved
from wootz.runtime.tasks.trainer import Look, Trainer
from wootz.runtime.tasks.workshop import Workshop

MODULES = """
layer { name: "a1" type: "Convolution" bottom: "conv" top: "a1" module: "a"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "ar" type: "ReLU" bottom: "a1" top: "a1" module: "a" }
layer { name: "a2" type: "Convolution" bottom: "a1" top: "a2" module: "a"
        convolution_param { num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "a" type: "Eltwise" bottom: "conv" bottom: "a2" top: "a" module: "a" }
"""
BLOCK = TuningBlock((Symbol(0, 0.5),))
SHORT = Solver(base_lr=0.05, max_iter=3, batch_size=16)


@pytest.fixture
def job(tmp_path, prototxt, split) -> Job:
    head, classifier = prototxt.split('layer { name: "fc"')
    (tmp_path / "net.prototxt").write_text(head + MODULES + 'layer { name: "fc"' + classifier.replace('"conv"', '"a"'))
    network = import_caffe(tmp_path / "net.prototxt")
    transform = InputTransform(channel_order="RGB")
    (tmp_path / "out").mkdir()
    return Job(
        title="net",
        network=network.model,
        modules_source="table",
        untrained=network.initialised,
        all_untrained=True,
        train_transform=transform,
        test_transform=transform,
        image_shape=(2, 4, 4),
        data_title="two brightnesses",
        dataset=Dataset(("dark", "bright"), split, split, None),
        subspace=Subspace(("a",), ((0.5,),)),
        objective=parse_objective("max Accuracy", "test"),
        teacher_solver=SHORT,
        solver=SHORT,
        pretrain_solver=SHORT,
        out=tmp_path / "out",
        device=Device(threads=1),
    )


def steps_of(site: Site, order: Order) -> tuple[int, str]:
    """What a worker of this process does for an order: the steps that it trains, and the key of the outcome."""
    (found,) = perform(site, order, Control(shared_machine(1, 1)[0]))
    return found.outcome["steps"], found.key


@pytest.mark.parametrize("task", [TrainTeacher(), PretrainBlocks((BLOCK,))])
def test_a_worker_that_outlives_a_run_does_the_next_one_in_its_folder(job, tmp_path, task):
    store = Store.open(tmp_path / "store")
    longer = replace(SHORT, max_iter=5)
    another = replace(job, teacher_solver=longer, pretrain_solver=longer)
    (first, first_key), (second, second_key) = (steps_of(Site.of(j, store), Order(task)) for j in (job, another))
    assert (first, second) == (3, 5)
    assert first_key != second_key
    assert store.get(second_key).record["steps"] == 5


def test_a_worker_does_not_begin_with_the_job_of_another_run(job, tmp_path):
    """The run that it works for has ended, and the next one has written its job."""
    store = Store.open(tmp_path / "store")
    ended = Site.of(job, store)
    Site.of(replace(job, solver=replace(SHORT, max_iter=7)), store)
    with pytest.raises(StorageError, match=r"job\.pickle: the worker on .* finds another job in it: its run is over"):
        steps_of(ended, Order(TrainTeacher()))


def test_blocks_are_stored_under_the_keys_of_the_worker(job, tmp_path):
    """Its device may round otherwise than that of the process that drives the run."""
    store = Store.open(tmp_path / "store")
    (key,) = Workshop(job, store).block_keys("", [BLOCK]).values()
    elsewhere = Workshop(replace(job, pretrain_solver=replace(SHORT, base_lr=0.01)), store)
    (found,) = elsewhere.perform(
        Order(PretrainBlocks((BLOCK,)), blocks=((BLOCK, key),)), Control(shared_machine(1, 1)[0])
    )
    assert found.key == elsewhere.block_keys("", [BLOCK])[BLOCK] != key
    assert store.entry(key) is None


def test_no_training_saves_less_than_nothing():
    assert [steps_saved(SHORT, {"steps": steps}) for steps in (1, 3, 5)] == [2, 0, 0]


def test_a_look_compares_the_channels_that_are_left_to_the_full_networks(job, tmp_path, monkeypatch):
    normalized = MODULES.replace(
        'layer { name: "ar"',
        'layer { name: "n" type: "BatchNorm" bottom: "a1" top: "a1" module: "a" }\nlayer { name: "ar"',
    )
    (tmp_path / "net.prototxt").write_text((tmp_path / "net.prototxt").read_text().replace(MODULES, normalized))
    workshop = Workshop(replace(job, network=import_caffe(tmp_path / "net.prototxt").model), Store.open(tmp_path / "s"))
    pruned = workshop.pruned(workshop.architecture, (0.5,))
    full = workshop.architecture.model
    of_full, left = (constants(model.graph)["a1.weight"] for model in (full, pruned))
    kept = [i for i, row in enumerate(of_full) if any(np.array_equal(row, other) for other in left)]
    assert len(kept) == 2
    offsets = workshop.trainer.statistics_offsets(full)
    own = {name: values[kept] if name.startswith("n.") else values for name, values in offsets.items()}
    expected = workshop.trainer.looks([pruned], [own])
    looks = []
    monkeypatch.setattr(
        Trainer, "looks", lambda _, networks, beyond, full: looks.append((*networks, *beyond)) or expected
    )
    order = Order(LookAt((0,)), configurations=((0.5,),))
    monkeypatch.setattr(Trainer, "qualities_of", lambda *_: [0.0])
    assert workshop.looks(order) == expected
    ((network, beyond),) = looks
    for name, values in constants(pruned.graph).items():
        np.testing.assert_array_equal(constants(network.graph)[name], values)
    assert beyond.keys() == own.keys()
    for name, values in own.items():
        np.testing.assert_array_equal(beyond[name], values)


def test_networks_looked_at_together_are_worth_what_each_is_alone(job, tmp_path):
    rates = (0.25, 0.5, 0.75)
    together = Order(LookAt((0, 1, 2)), configurations=tuple((rate,) for rate in rates), of_full=1.0)
    found = Workshop(job, Store.open(tmp_path / "together")).looks(together)
    alone = Workshop(job, Store.open(tmp_path / "alone"))
    for rate, look in zip(rates, found, strict=True):
        assert alone.looks(Order(LookAt((0,)), configurations=((rate,),), of_full=1.0)) == [look]
    some_known = Workshop(job, Store.open(tmp_path / "alone"))
    assert some_known.looks(together) == found


def test_a_look_measures_statistics_where_much_was_lost(job, tmp_path, monkeypatch):
    workshop = Workshop(job, Store.open(tmp_path / "s"))
    little_was_lost, better, worse = (0.85, 0.9, 0.85), (0.7, 0.75, 0.75), (0.71, 0.65, 0.71)
    as_assembled, recalibrated, looked = zip(better, little_was_lost, worse, strict=True)
    quality_with = dict(zip(as_assembled, recalibrated, strict=True))
    networks = {rate: workshop.pruned(workshop.architecture, (rate,)) for rate in (0.25, 0.5, 0.75)}
    quality_of = {
        constants(n.graph)["a1.weight"].shape: q for n, q in zip(networks.values(), as_assembled, strict=True)
    }

    def qualities(_, models, *__):
        return [quality_of[constants(m.graph)["a1.weight"].shape] for m in models]

    monkeypatch.setattr(Trainer, "qualities_of", qualities)
    monkeypatch.setattr(Trainer, "looks", lambda _, models, *__: [Look(quality_with[q]) for q in qualities(_, models)])
    order = Order(LookAt((0, 1, 2)), configurations=tuple((rate,) for rate in networks), of_full=0.9)
    assert workshop.looks(order) == list(map(Look, looked))
