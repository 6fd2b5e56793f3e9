"""A search on a small network, in one process: what it tries, writes and finds again."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.frontend.objective import parse_objective
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.costs import network_cost
from wootz.passes.errors import WootzError
from wootz.passes.ir.files import load
from wootz.passes.plan.space import Space
from wootz.passes.plan.subspace import SKIP, Subspace
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime.batches import ordered_batches
from wootz.runtime.events import Planned, TaskEnded, events_of
from wootz.runtime.job import Job, Searching
from wootz.runtime.result import RunResult
from wootz.runtime.session import FileSession
from wootz.runtime.survey import space_of
from wootz.runtime.tasks import workshop
from wootz.runtime.tasks.trainer import Trainer

OPTIONS = (0.0, 0.25, 0.5, 0.75, SKIP)


@pytest.fixture
def searching(job) -> Job:
    space = Space(job.subspace.modules, (OPTIONS, OPTIONS))
    networks = Subspace(space.modules, (*space.stars, *space.uniform))
    objective = parse_objective("min ModelSize constraint Accuracy >= full - 0.03", "test")
    search = Searching(space, (0.25, 0.5, 0.75), networks=4, looks=30)
    return replace(job, subspace=networks, objective=objective, search=search)


CHAIN = "".join(
    f"""
layer {{ name: "{name}" type: "Convolution" bottom: "{before}" top: "{name}"
        convolution_param {{ num_output: 8 kernel_size: 1 weight_filler {{ type: "msra" }} }} }}
layer {{ name: "{name}r" type: "ReLU" bottom: "{name}" top: "{name}" }}
"""
    for before, name in (("conv", "a"), ("a", "b"), ("b", "c"))
)


@pytest.fixture
def chain(job, tmp_path, prototxt) -> Job:
    """Layers one after the other: a piece is a layer behind another one's rate."""
    head, classifier = prototxt.split('layer { name: "fc"')
    (tmp_path / "chain.prototxt").write_text(head + CHAIN + 'layer { name: "fc"' + classifier.replace('"conv"', '"c"'))
    network = import_caffe(tmp_path / "chain.prototxt").model
    network = replace(network, modules=find_modules(network)[0])
    space = space_of(BlockPruner.of(network), [(0.0, 0.25, 0.5, 0.75)] * len(network.modules))
    assert space.is_open
    search = Searching(space, (0.25, 0.5, 0.75), networks=4, looks=30)
    objective = parse_objective("min FLOPs constraint Accuracy >= full - 0.03", "test")
    subspace = Subspace(space.modules, (*space.stars, *space.uniform))
    return replace(job, network=network, subspace=subspace, objective=objective, search=search)


def test_a_chain_of_layers_is_searched_and_its_costs_are_exact(chain, finished):
    found = finished(chain)
    assert found.best.flops < 0.6 * found.full.flops
    assert found.best.quality >= found.full.reference_quality - 0.03
    pruner = BlockPruner.of(chain.network)
    for network in found.search.networks:
        pruned = pruner.materialize(pruner.plan(dict(zip(found.modules, network.configuration, strict=True))))
        cost = network_cost(pruned)
        assert (network.model_size, network.flops) == (cost.parameters, 2 * cost.macs)
    assert all(len(block.symbols) == 1 for block in found.blocks)
    assert all(block.symbols[0].rate == 0 for block in found.blocks), "blocks are trained with their output whole"
    sharing = [sum(i in network.blocks for network in found.networks) for i in range(len(found.blocks))]
    assert [block.networks for block in found.blocks] == sharing
    assert any(sharing)


def test_a_search_finds_a_smaller_network_and_writes_a_front_that_runs(searching, finished):
    found = finished(searching)
    full, best, search = found.full, found.best, found.search
    assert best.model_size < full.model_size
    assert best.quality >= full.reference_quality - 0.03
    assert found.networks_evaluated <= 4
    assert RunResult.load(searching.out) == found
    assert len(search.scores) == 8
    assert all(score.divergence >= 0 for score in search.scores)
    split = searching.dataset.validation
    (batch,) = ordered_batches(split, searching.test_transform, len(split))
    assert best.index in {point.index for point in search.front}
    for point in search.front:
        scores = FileSession(str(searching.out / point.model), searching.device).run(batch.data)
        right = (scores.reshape(len(split), -1).argmax(axis=1) == split.labels).mean()
        assert right == pytest.approx(point.quality)
        assert load(searching.out / point.model).graph.nodes
        assert point.latency.median_ms > 0
    sizes, accuracies = zip(*((p.model_size, p.quality) for p in search.front), strict=True)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert list(accuracies) == sorted(accuracies, reverse=True)


def test_the_table_has_all_networks_that_were_met(searching, finished):
    found = finished(searching)
    with (searching.out / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows[: 1 + len(found.search.front)]] == [
        "teacher.onnx",
        *(point.model for point in found.search.front),
    ]
    assert len(rows) == 1 + len(found.search.networks)
    measured = [row for row in rows[1:] if row["quality"]]
    assert len(measured) == found.networks_evaluated
    assert {row["origin"] for row in rows} >= {"full", "solver", "uniform"}


def test_costs_are_those_of_the_networks_that_were_assembled(searching, finished):
    found = finished(searching)
    by_size = {network.index: network.model_size for network in found.networks}
    for point in found.search.front:
        assert point.model_size == by_size[point.index]


def test_another_objective_begins_with_what_is_known(searching, finished):
    first = finished(searching)
    again = replace(
        searching,
        out=searching.out.with_name("again"),
        objective=parse_objective("max Accuracy constraint ModelSize <= 0.7 * full", "test"),
        ends_early=False,
        run="again",
    )
    whole = replace(searching, out=searching.out.with_name("whole"), ends_early=False)
    store = searching.out.with_name("store")
    finished(whole, store)
    second = finished(again, store)
    assert second.reuse.blocks == len(second.blocks) > 0
    assert second.reuse.networks > 0
    assert second.reuse.seconds_saved > 0
    assert second.best.model_size <= 0.7 * second.full.model_size
    assert first.full.model_size == second.full.model_size


def test_bounds_that_no_network_can_meet_are_refused_before_anything_is_trained(searching, finished):
    impossible = replace(searching, objective=parse_objective("max Accuracy constraint ModelSize <= 10", "test"))
    with pytest.raises(WootzError, match="no network of the space can meet 'ModelSize <= 10'"):
        finished(impossible)


def test_the_same_search_goes_the_same_way_again(searching, finished):
    """It takes what it has trained from the store, and is led by nothing else: neither anew nor continued."""
    store = searching.out.with_name("store")
    first = finished(replace(searching, run="first"), store)
    for name, run in (("fresh", "another"), ("continued", "first")):
        again = finished(replace(searching, out=searching.out.with_name(name), run=run), store)
        assert again.best.configuration == first.best.configuration
        assert [n.configuration for n in again.networks] == [n.configuration for n in first.networks]
        assert again.search.networks == first.search.networks


def test_blocks_are_scored_on_few_images_of_all_kinds(searching, finished, monkeypatch):
    looked_at = []
    of_trainer = Trainer.scores

    def scores(self, full, variants, split):
        looked_at.append(split)
        return of_trainer(self, full, variants, split)

    monkeypatch.setattr(Trainer, "scores", scores)
    monkeypatch.setattr(workshop, "SCORED_IMAGES", 5)
    finished(searching)
    validation = searching.dataset.validation
    assert len(validation) > 5
    for split in looked_at:
        assert len(split) == 5
        assert {split.labels[0], split.labels[-1]} == {validation.labels[0], validation.labels[-1]}


def test_rates_in_between_are_trained_later(searching, finished, tmp_path):
    (tmp_path / "wide.prototxt").write_text(
        (tmp_path / "net.prototxt").read_text().replace("num_output: 4", "num_output: 8")
    )
    searching = replace(searching, network=import_caffe(tmp_path / "wide.prototxt").model)
    eighths = tuple(i / 8 for i in range(8))
    space = Space(searching.search.space.modules, (eighths, eighths))
    subspace = Subspace(space.modules, (*space.stars, *space.uniform))
    search = replace(searching.search, space=space, rates=eighths[1:], looks=20)
    result = finished(replace(searching, subspace=subspace, search=search))
    assert result.search is not None
    first, *later = result.groups
    rates = [block.symbols[0].rate for block in result.blocks]
    assert {rates[position] for position in first} == {0.25, 0.5, 0.75}
    assert later
    assert len(rates) < 14
    trained = {(block.symbols[0].module, block.symbols[0].rate) for block in result.blocks}
    assert trained == {(score.module, score.rate) for score in result.search.scores}
    known = {r for network in result.search.networks for r in zip(result.modules, network.configuration, strict=True)}
    assert {option for option in known if option[1]} <= trained
    events = list(events_of(searching.out))
    kinds = [event.task.kind for event in events if isinstance(event, TaskEnded)]
    assert kinds.index("look") < len(kinds) - kinds[::-1].index("blocks"), "further blocks come behind looks"
    assert [e.blocks for e in events if isinstance(e, Planned)][-1] == len(rates)


def test_a_search_of_a_smaller_space_leaves_out_what_is_known_of_other_networks(searching, finished):
    """Modules that are left out need no block: searches with them and without share all that is trained."""
    store = searching.out.with_name("store")
    everything = parse_objective("min ModelSize constraint Accuracy >= full - 0.9", "test")
    with_skips = finished(replace(searching, objective=everything, ends_early=False), store)
    assert any(SKIP in network.configuration for network in with_skips.networks)
    space = Space(searching.search.space.modules, (OPTIONS[:-1], OPTIONS[:-1]))
    without = replace(
        searching,
        out=searching.out.with_name("without"),
        run="without",
        subspace=Subspace(space.modules, (*space.stars, *space.uniform)),
        search=replace(searching.search, space=space),
    )
    found = finished(without, store)
    assert found.networks
    assert not any(SKIP in network.configuration for network in found.networks)
