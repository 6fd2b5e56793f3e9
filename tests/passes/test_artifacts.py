"""What each pass leaves, written to a file, loads in ONNX Runtime in silence, runs, and reads back unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from wootz.passes.ir.files import load, save
from wootz.passes.ir.initial_values import without_initial_values
from wootz.passes.ir.model import Model, Module, constants
from wootz.passes.ir.stream import LARGE
from wootz.passes.ir.text import parse_text, print_text
from wootz.passes.pipeline import parse_pipeline, run_pipeline
from wootz.passes.registry import PASSES
from wootz.passes.training.block_convolutions import BLOCKS
from wootz.passes.transforms.int8 import Int8
from wootz.runtime.delivery.quantization import quantize
from wootz.runtime.session import channel_block

MODULES = [{"name": "a", "entry": "s", "exit": "ta"}, {"name": "b", "entry": "ta", "exit": "tb"}]
NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
network (float[N,3,6,6] x) => (float[N,2] y) {
  [stem] s = Conv(x, "stem.weight")
  [a1] a1 = Conv<pads = [1,1,1,1]>(s, "a1.weight")
  [bn] an = BatchNormalization(a1, "bn.scale", "bn.bias", "bn.mean", "bn.variance")
  [arelu] ar = Relu(an)
  [a2] a2 = Conv<pads = [1,1,1,1]>(ar, "a2.weight", "a2.bias")
  [aadd] ta = Add(s, a2)
  [b1] b1 = Conv<pads = [1,1,1,1]>(ta, "b1.weight")
  [brelu] br = Relu(b1)
  [b2] b2 = Conv<pads = [1,1,1,1]>(br, "b2.weight")
  [badd] tb = Add(ta, b2)
  [pool] p = GlobalAveragePool(tb)
  [flat] f = Flatten(p)
  [fc] logits = Gemm<transB = 1>(f, "fc.weight", "fc.bias")
  [prob] y = Softmax<axis = 1>(logits)
}"""

TRAINING = ("training-mode", "attach-loss", "build-gradients", "apply-optimizer{momentum=0.9}", "legalize")
PIPELINES = {name: name for name in PASSES} | {
    "add-postprocessing": "prune-blocks{rate=0.5},add-postprocessing{network=full.onnx}",
    "apply-optimizer": ",".join(TRAINING[:4]),
    "block-convolutions": ",".join([*TRAINING, f"block-convolutions{{channels={channel_block() or BLOCKS[0]}}}"]),
    "apply-plan": "apply-plan{plan=plan.json}",
    "assemble": "prune-blocks{rate=0.5},assemble{blocks=block.onnx}",
    "attach-loss": ",".join(TRAINING[:2]),
    "build-gradients": ",".join([*TRAINING[:2], "build-gradients{parameters-as-inputs=true}"]),
    "distill": "prune-blocks{rate=0.5},distill{teacher=full.onnx}",
    "embed-batches": ",".join([*TRAINING, "embed-batches{batch-size=4,window=4}"]),
    "extract-blocks": "extract-blocks{first=a}",
    "fix-sizes": "fix-sizes{size=6,6}",
    "int8": "fold-batchnorm,int8",
    "legalize": ",".join(TRAINING),
    "mixed-precision": ",".join([TRAINING[0], TRAINING[1], "mixed-precision", *TRAINING[2:]]),
    "prune-blocks": "prune-blocks{rate=0.5}",
    "prune-filters": "prune-filters{rate=0.5}",
    "replace-head": "replace-head{classes=3}",
    "teacher-student": "teacher-student{blocks=a@0.5},training-mode,build-gradients,apply-optimizer,legalize",
}
"""For each pass what makes its artefact; a new pass is tried on the network itself."""


@pytest.fixture(params=[4, 64], ids=["small", "large"])
def network(request: pytest.FixtureRequest) -> Model:
    """A network whose convolutions lie below and above the size from which weights are streamed into the file."""
    channels = request.param
    metadata = {"wootz.input": '{"scale": [0.5]}'}
    model = replace(parse_text(NETWORK), modules=tuple(Module(**row) for row in MODULES), metadata=metadata)
    shapes = {"stem.weight": (channels, 3, 1, 1), "fc.weight": (2, channels), "fc.bias": (2,), "a2.bias": (channels,)}
    shapes |= {f"{name}.weight": (channels, channels, 3, 3) for name in ("a1", "a2", "b1", "b2")}
    shapes |= {f"bn.{name}": (channels,) for name in ("scale", "bias", "mean", "variance")}
    tensors, random = model.graph.tensors(), np.random.default_rng(0)
    for name, shape in shapes.items():
        values = random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape) if len(shape) > 1 else random.random(shape)
        tensors[name].to_constant(values.astype(np.float32))
    assert (constants(model.graph)["a1.weight"].nbytes >= LARGE) == (channels == 64)
    return model


@pytest.fixture
def artifact(network: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Model]:
    """Makes what the pass of a name leaves of the network; we are in a folder of our own."""
    monkeypatch.chdir(tmp_path)

    def make(name: str) -> Model:
        if name in ("apply-plan", "assemble"):
            pruned = run_pipeline(network, parse_pipeline("prune-blocks{rate=0.5}"))
            (plan,) = [step.result.plan for step in pruned.steps if step.result.plan is not None]
            Path("plan.json").write_text(plan.to_json())
            save(run_pipeline(pruned.model, parse_pipeline("extract-blocks{first=b}")).model, "block.onnx")
        if name in ("add-postprocessing", "distill"):
            save(network, "full.onnx")
        if name == "fix-sizes":
            network.graph.inputs[0].shape = ["N", 3, "H", "W"]
        passes = parse_pipeline(PIPELINES[name])
        if name == "int8":
            sample = {"x": np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)}
            passes = tuple(replace(p, sample=sample, quantizer=quantize) if isinstance(p, Int8) else p for p in passes)
        return run_pipeline(network, passes).model

    return make


@pytest.mark.parametrize("name", sorted(PASSES))
def test_the_artifact_of_a_pass_runs(
    name: str, artifact: Callable[[str], Model], capfd: pytest.CaptureFixture[str]
) -> None:
    model = artifact(name)
    save(model, "artifact.onnx")
    capfd.readouterr()
    session = onnxruntime.InferenceSession("artifact.onnx", providers=["CPUExecutionProvider"])
    program, initial = without_initial_values(model)
    location = session.get_modelmeta().custom_metadata_map.get("wootz.initial-values")
    state = dict(np.load(location)) if location else {}
    assert state.keys() == initial.keys()
    feeds = _feeds(session, state)
    results = session.run(None, feeds)
    assert capfd.readouterr() == ("", "")
    expected = onnxruntime.InferenceSession(program.to_proto().SerializeToString()).run(None, {**feeds, **initial})
    for result, wanted in zip(results, expected, strict=True):
        assert np.isfinite(result).all()
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("name", sorted(PASSES))
@pytest.mark.parametrize("suffix", [".onnx", ".onnxtxt"])
def test_the_artifact_of_a_pass_reads_back(name: str, suffix: str, artifact: Callable[[str], Model]) -> None:
    if (name, suffix) == ("build-gradients", ".onnxtxt"):
        pytest.skip("no training graph yet: its text has inputs with initializers, which are read as constants")
    model = artifact(name)
    save(model, f"artifact{suffix}")
    assert print_text(load(f"artifact{suffix}")) == print_text(model)


def _feeds(session: onnxruntime.InferenceSession, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two images, or a training set of four with a schedule for each run."""
    random = np.random.default_rng(1)
    feeds = dict(state)
    for given in session.get_inputs():
        if given.name in state:
            continue
        shape = [d if isinstance(d, int) else 4 for d in given.shape]
        if given.type in ("tensor(int64)", "tensor(uint8)"):
            feeds[given.name] = random.integers(0, 2, shape).astype(given.type[7:-1])
        else:
            feeds[given.name] = random.random(shape, np.float32)
    return feeds


def test_the_state_goes_on_from_the_initial_values(artifact: Callable[[str], Model]) -> None:
    """What docs/training-graphs.md says of a program of one's own: the loss of a fixed batch falls."""
    save(artifact("legalize"), "training.onnx")
    session = onnxruntime.InferenceSession("training.onnx", providers=["CPUExecutionProvider"])
    interface = json.loads(session.get_modelmeta().custom_metadata_map["wootz.training"])
    state = dict(np.load("training.initial.npz"))
    batch = {k: v for k, v in _feeds(session, state).items() if k not in state}
    batch[interface["learning_rate"]] = np.array(0.01, np.float32)
    losses = []
    for _ in range(10):
        loss, *new = session.run(interface["losses"] + [s["output"] for s in interface["slots"]], {**batch, **state})
        state = dict(zip([s["input"] for s in interface["slots"]], new, strict=True))
        losses.append(loss)
    assert losses[-1] < losses[0]
