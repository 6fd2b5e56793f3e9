"""Which networks are measured for a table, on machines that are invented, on this one, and as a script elsewhere."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.analysis.modules import find_modules
from wootz.passes.blocks.costs import network_cost
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.model import Module, tensor_shape
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.blocks import Symbol
from wootz.passes.plan.subspace import SKIP
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.runtime.latency_table import measuring
from wootz.runtime.latency_table.measuring import (
    export,
    measure_table,
    options_of,
    read_fitting_table,
    table_to_measure,
)
from wootz.runtime.latency_table.table import read_table
from wootz.runtime.session import Device, evaluate

RESIDUAL = Path(__file__).parents[3] / "examples" / "digits" / "net.prototxt"
CHAIN = """
name: "chain"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "conv3" type: "Convolution" bottom: "conv2" top: "conv3"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv3" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "msra" } } }
"""
U_NET = """<ir_version: 8, opset_import: ["" : 18]>
unet (float[N, 1, 8, 8] x) => (float[N, 2, 8, 8] y) {
  [down1] a = Conv <pads = [1, 1, 1, 1]> (x, w0)
  [relu1] b = Relu (a)
  [down2] c = Conv <pads = [1, 1, 1, 1]> (b, w1)
  [pool] d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
  [low] e = Conv <pads = [1, 1, 1, 1]> (d, w2)
  [up] f = ConvTranspose <strides = [2, 2]> (e, w3)
  [join] g = Concat <axis = 1> (c, f)
  [last1] h = Conv <pads = [1, 1, 1, 1]> (g, w4)
  [last2] y = Conv (h, w5)
}"""
WITHOUT_WOOTZ = """
import runpy, sys
sys.modules["wootz"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
RATES = (0.0, 0.25, 0.5)


def pruner_of(path):
    network = import_caffe(path).model
    return BlockPruner.of(replace(network, modules=find_modules(network)[0]))


@pytest.fixture
def residual():
    return pruner_of(RESIDUAL)


@pytest.fixture
def unet():
    """Modules of several entries and exits."""
    model = parse_text(U_NET)
    random, tensors = np.random.default_rng(0), model.graph.tensors()
    for i, shape in enumerate(((8, 1, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (8, 8, 2, 2), (8, 16, 3, 3), (2, 8, 1, 1))):
        tensors[f"w{i}"].to_constant(random.normal(size=shape).astype(np.float32))
    modules = (Module("down", "x", "d", (), ("c",)), Module("up", "d", "y", ("c",)))
    return BlockPruner.of(replace(model, modules=modules))


@pytest.fixture
def chain(tmp_path):
    (tmp_path / "chain.prototxt").write_text(CHAIN)
    return pruner_of(tmp_path / "chain.prototxt")


def shape_of(pruner):
    return tensor_shape(pruner.model.graph.inputs[0])[1:]


def by_macs(models, device, seconds):
    """A machine on which a run takes 0.3 ms and 1 ms each million multiply-accumulates; every sixth twice that."""
    return [[(2 if i % 6 == 5 else 1) * (0.3 + network_cost(m).macs / 1e6) for i in range(24)] for m in models]


def macs_of(pruner, configuration):
    rates = {module.name: rate for module, rate in zip(pruner.modules, configuration, strict=True)}
    return network_cost(pruner.materialize(pruner.plan(rates))).macs


@pytest.mark.parametrize("name", ["residual", "chain"])
def test_where_times_are_additive_the_table_predicts_every_network(name, request):
    pruner = request.getfixturevalue(name)
    options = options_of(pruner, RATES)
    table = measure_table(pruner, options, shape_of(pruner), measure=by_macs)
    for configuration in list(product(*options))[::17]:
        assert table.predict(configuration) == pytest.approx(0.3 + macs_of(pruner, configuration) / 1e6)
    assert table.error.worst < 1e-6
    assert [n.use for n in table.networks].count("check") == min(8, len(table.networks) - 1)
    assert table.outliers[0] == 4 / 24 * table.outliers[1]
    position, rate = next((i, rates[1]) for i, rates in enumerate(options) if len(rates) > 1)
    one_pruned = tuple(rate if i == position else 0.0 for i in range(len(options)))
    saved = (macs_of(pruner, [0.0] * len(options)) - macs_of(pruner, one_pruned)) / 1e6
    full, pruned = (table.space.spell(c) for c in ((0.0,) * len(options), one_pruned))
    assert sum(table.pieces[s] for s in full) - sum(table.pieces[s] for s in pruned) == pytest.approx(saved)


def test_modules_of_several_entries_and_exits_are_measured(unet, tmp_path):
    options = options_of(unet, RATES)
    seen = []

    def by_inputs(models, device, seconds):
        seen.extend([tensor_shape(t) for t in model.graph.inputs] for model in map(evaluated, models))
        return [[1.0] * 24 for _ in seen]

    def evaluated(model):
        given = {t.name: np.ones(t.shape, np.float32) for t in model.graph.inputs}
        assert all(np.isfinite(values).all() for values in evaluate(model, given).values())
        return model

    measure_table(unet, options, (1, 8, 8), measure=by_inputs)
    pieces = [shapes for shapes in seen if shapes != [(1, 1, 8, 8)]]
    assert pieces == [[(1, 8, 4, 4), (1, 8, 8, 8)]] * len(options[1])
    real = measure_table(unet, options, (1, 8, 8), Device(threads=1), seconds=0.01)
    assert real.predict((0.0, 0.0)) > 0
    export(tmp_path / "export", unet, options, (1, 8, 8))
    command = [sys.executable, "-c", WITHOUT_WOOTZ, str(tmp_path / "export" / "measure.py"), "-o", "table.json"]
    done = subprocess.run([*command, "--seconds", "0"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "table.json").predict((0.0, 0.0)) > 0


def test_more_pieces_than_the_bound_are_interpolated(chain, monkeypatch):
    """Of each module at each rate two are measured, behind the least and the greatest rate."""
    options = options_of(chain, (0.25, 0.5, 0.75))
    whole = measure_table(chain, options, shape_of(chain), measure=by_macs)
    monkeypatch.setattr(measuring, "MOST_PIECES", 8)
    measured = []

    def counted(models, device, seconds):
        found = by_macs(models, device, seconds)
        measured.extend(found)
        return found

    table = measure_table(chain, options, shape_of(chain), measure=counted)
    pieces = [p for module in table.modules for p in module.pieces]
    assert sum(p.times.runs > 0 for p in pieces) == len(measured) - len(table.networks) == 4 + 8 + 8
    assert len(pieces) == 4 + 16 + 16
    assert table.pieces == pytest.approx(whole.pieces)
    monkeypatch.setattr(measuring, "MOST_RATES", 15)
    with pytest.raises(WootzError, match="gets inputs from 1 others, and has more than 15 pieces"):
        table_to_measure(chain, options, shape_of(chain))


def test_networks_with_modules_left_out_are_among_those_that_the_correction_is_fitted_to(residual):
    """A module that is left out takes nothing, though alone it has a start and an end."""
    options = options_of(residual, RATES, skip=True)
    table = measure_table(residual, options, shape_of(residual), measure=by_macs)
    assert any(SKIP in n.configuration for n in table.networks if n.use == "fit")
    assert table.correction.module_ms == pytest.approx(-0.3)
    left_out = next(i for i, rates in enumerate(options) if SKIP in rates)
    assert table.costs[Symbol(left_out, SKIP)] == 0
    for configuration in list(product(*options))[::17]:
        assert table.predict(configuration) == pytest.approx(0.3 + macs_of(residual, configuration) / 1e6)


@pytest.mark.parametrize("name", ["residual", "chain"])
def test_pieces_are_in_their_delivered_form_and_of_the_sizes_that_they_have_in_the_network(name, request):
    """One behind the other they compute what the modules of the network do, of two images at once."""
    pruner = request.getfixturevalue(name)
    options = options_of(pruner, RATES)
    table, subjects = table_to_measure(pruner, options, shape_of(pruner), batch=2)
    assert len({subject.name for subject in subjects}) == len(subjects)
    models = {subject.row: subject.model() for subject in subjects}
    assert all(node.op != "BatchNormalization" for model in models.values() for node in model.graph.nodes)
    rates = tuple(of_module[-1] for of_module in options)
    symbols = table.space.spell(rates)
    pieces = [
        models["modules", i, "pieces", j]
        for i, module in enumerate(table.modules)
        for j, p in enumerate(module.pieces)
        if (p.rate, p.input_rates) == (symbols[i].rate, symbols[i].input_rates)
    ]
    pruned = pruner.materialize(
        pruner.plan({module.name: rate for module, rate in zip(pruner.modules, rates, strict=True)})
    )
    tensors = pruned.graph.tensors()
    pruned.graph.outputs = [
        *pruned.graph.outputs,
        *(tensors[m.entry] for m in pruner.modules[:1] if tensors[m.entry].inputs),
    ]
    pruned.graph.outputs += [tensors[m.exit] for m in pruner.modules]
    image = np.random.default_rng(0).standard_normal((2, *shape_of(pruner))).astype(np.float32)
    values = {**evaluate(pruned, {pruned.graph.inputs[0].name: image}), pruned.graph.inputs[0].name: image}
    current = values[pruner.modules[0].entry]
    for module, model in zip(pruner.modules, pieces, strict=True):
        if module.entry in values:
            current = values[module.entry]
        assert tensor_shape(model.graph.inputs[0]) == current.shape
        (current,) = evaluate(model, {model.graph.inputs[0].name: current}).values()
        np.testing.assert_allclose(current, values[module.exit], rtol=1e-3, atol=1e-4)


def test_a_table_is_measured_here(residual):
    table = measure_table(
        residual, options_of(residual, RATES), shape_of(residual), Device(threads=1), batch=2, seconds=0
    )
    assert (table.measured_on.threads, table.measured_on.batch) == (1, 2)
    assert table.measured_on.provider == "CPUExecutionProvider"
    assert table.measured_on.runtime.startswith("onnxruntime 1.")
    assert all(piece.times.runs == 20 for module in table.modules for piece in module.pieces)
    assert table.full_ms > 0


def test_a_table_is_measured_by_the_exported_script(residual, tmp_path):
    """Which is all that the other machine needs: Wootz can't be imported there."""
    options, folder, moved = options_of(residual, RATES), tmp_path / "exported", tmp_path / "elsewhere"
    count = export(folder, residual, options, shape_of(residual), batch=2)
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) == count + 2
    assert {"measure.py", "networks.json", "network-0.onnx", "1-0.onnx"} <= set(names)
    onnx.checker.check_model(str(folder / "1-0.onnx"), full_check=True)
    shutil.move(folder, moved)
    command = [sys.executable, "-c", WITHOUT_WOOTZ, str(moved / "measure.py"), "-o", "table.json", "--seconds", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = read_fitting_table(tmp_path / "table.json", residual, options, shape_of(residual))
    assert table == read_table(tmp_path / "table.json")
    assert table.measured_on.machine
    assert table.measured_on.threads == 1
    assert all(piece.times.runs == 20 for module in table.modules for piece in module.pieces)
    assert table.predict((0.0,) * len(options)) > 0
    command += ["--provider", "NoSuchProvider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no NoSuchProvider here, but" in done.stderr


def without(name):
    return lambda folder: (folder / name).unlink()


def with_content(name, content):
    return lambda folder: (folder / name).write_text(content)


def with_list(change):
    def damage(folder):
        listed = json.loads((folder / "networks.json").read_text())
        change(listed)
        (folder / "networks.json").write_text(json.dumps(listed))

    return damage


DAMAGES = {
    "a piece is missing": (without("1-0.onnx"), (), "1-0.onnx: missing: export the folder again"),
    "a piece is damaged": (with_content("1-0.onnx", "x" * 99), (), "1-0.onnx: damaged, or can't be run here"),
    "another piece": (with_list(lambda of: of["networks"][0].update(shape=[1])), (), "onnx: damaged, or can't be run"),
    "no list": (without("networks.json"), (), "networks.json: missing or damaged (FileNotFoundError"),
    "no JSON": (with_content("networks.json", "{"), (), "networks.json: missing or damaged (JSONDecodeError"),
    "a list": (with_content("networks.json", "[]"), (), "networks.json: missing or damaged"),
    "no row": (with_list(lambda of: of["networks"][0].update(row=["modules", 99])), (), "networks.json: missing or"),
    "no networks": (with_list(lambda of: of.update(networks=[])), (), "networks.json: missing or damaged"),
    "no file": (with_list(lambda of: of["networks"][0].pop("file")), (), "networks.json: missing or damaged"),
    "no batch": (with_list(lambda of: of["table"].pop("measured_on")), (), "networks.json: missing or damaged"),
    "no folder": (lambda folder: None, ("-o", "nowhere/table.json"), "nowhere/table.json: there is no such folder"),
}


@pytest.mark.parametrize(("damage", "options", "said"), DAMAGES.values(), ids=DAMAGES)
def test_the_exported_script_says_in_one_line_what_is_wrong(residual, tmp_path, damage, options, said):
    folder = tmp_path / "exported"
    export(folder, residual, options_of(residual, (0.0, 0.5)), shape_of(residual))
    damage(folder)
    command = [sys.executable, "-c", WITHOUT_WOOTZ, str(folder / "measure.py"), "--seconds", "0", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "table.json").exists()


@pytest.mark.parametrize("option", [("--seconds", "nan"), ("--seconds", "-1"), ("--threads", "0")])
def test_the_exported_script_refuses_what_is_no_number(tmp_path, option):
    done = subprocess.run([sys.executable, measuring.script.__file__, *option], cwd=tmp_path, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert f"error: {option[0]}" in done.stderr


def test_an_exported_list_that_was_not_measured_is_no_table(residual, tmp_path):
    export(tmp_path / "new", residual, options_of(residual, RATES), shape_of(residual))
    listed = json.loads((tmp_path / "new" / "networks.json").read_text())
    (tmp_path / "table.json").write_text(json.dumps(listed["table"]))
    with pytest.raises(InputError, match="a whole network was not measured"):
        read_table(tmp_path / "table.json")
    with pytest.raises(InputError, match="there is something already"):
        export(tmp_path / "new", residual, options_of(residual, RATES), shape_of(residual))


def test_a_table_of_other_filters_is_refused(residual, chain, tmp_path):
    options = options_of(residual, RATES)
    measure_table(residual, options, shape_of(residual), measure=by_macs).save(tmp_path / "table.json")
    read_fitting_table(tmp_path / "table.json", residual, options, shape_of(residual))
    fewer = [rates[:1] for rates in options]
    read_fitting_table(tmp_path / "table.json", residual, fewer, shape_of(residual))
    with pytest.raises(InputError, match=r"table.json: .* lacks module .* at rate 0.6 and .* more pieces"):
        read_fitting_table(tmp_path / "table.json", residual, [[0.0, 0.6]] * len(options), shape_of(residual))
    with pytest.raises(InputError, match="of another network: it has no module"):
        read_fitting_table(tmp_path / "table.json", chain, options_of(chain, RATES), shape_of(residual))
