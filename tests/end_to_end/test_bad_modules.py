"""Modules that can't be cut out: `wootz run` and `wootz blocks` refuse them in one line before anything is trained."""

from dataclasses import replace

import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.analysis.modules import find_modules
from wootz.passes.ir.files import save

pytest.importorskip("sklearn")


@pytest.fixture
def network(job_files):
    model = import_caffe(job_files / "net.prototxt").model
    return replace(model, modules=find_modules(model)[0])


@pytest.mark.parametrize(
    ("module", "change", "reason"),
    [
        (1, {"entry": "@0.entry"}, "modules 'res2a' and 'res2b' overlap: "),
        (
            0,
            {"exit": "fused_away"},
            "module 'res2a': there is no tensor 'fused_away' in the graph; a node that was fused",
        ),
        (2, {"entry": "data", "exit": "@inside"}, "module 'res3a': it has a second output beside "),
    ],
)
def test_refusals(wootz, job_files, network, tmp_path, module, change, reason):
    inside = next(n for n in network.graph.nodes if n.name.startswith(f"{network.modules[module].name}_branch2a"))
    known = {"@0.entry": network.modules[0].entry, "@inside": inside.outputs[0].name}
    modules = list(network.modules)
    modules[module] = replace(modules[module], **{end: known.get(t, t) for end, t in change.items()})
    save(replace(network, modules=tuple(modules)), tmp_path / "net.onnx")
    files = [f"--{n}={job_files / f}" for n, f in (("subspace", "subspace.json"), ("solver", "solver.prototxt"))]
    more = [f"--objective={job_files / 'objective.txt'}", f"--pretrain-solver={job_files / 'pretrain.prototxt'}"]
    for command in (
        ["run", "net.onnx", "--data", "digits", "--out", "out", *files, *more],
        ["blocks", "net.onnx", files[0]],
    ):
        done = wootz(*command, cwd=tmp_path)
        assert done.code == 1, done.out
        assert done.err.startswith(f"error: {reason}"), done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()
