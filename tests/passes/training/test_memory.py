"""The memory of training graphs: what is alive when, the order of execution, and the process that runs them."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from wootz.frontend.caffe.importer import import_caffe
from wootz.passes.ir.files import save
from wootz.passes.ir.model import TRAINING_KEY, Model
from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.training.interface import Slot, TrainingInterface
from wootz.passes.training.joint_graph import joint_training_graph
from wootz.passes.training.memory import execution_order, training_memory
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.teacher_student import parse_blocks

EXAMPLES = Path(__file__).parents[3] / "examples"

ONES = ", ".join("1" * 1000)
GRAPH = f"""<ir_version: 8, opset_import: ["" : 18]>
step (float[N, 1000] x, float rate, float[1000] w = {{{ONES}}}) => (float loss, float[1000] new)
<float[1000] c = {{{ONES}}}> {{
  a = Add (x, c)
  b = Mul (a, w)
  d = Relu (b)
  e = Exp (a)
  f = Concat <axis = 0> (d, e)
  loss = ReduceMean <keepdims = 0> (f)
  h = Mul (w, rate)
  new = Sub (h, c)
}}
"""
INTERFACE = TrainingInterface("x", None, "rate", ("loss",), (Slot("w", "new", "parameter", "loss"),))


def test_what_is_alive_is_counted_in_bytes():
    proto = onnx.parser.parse_model(GRAPH)
    onnx.helper.set_model_props(proto, {TRAINING_KEY: INTERFACE.to_json()})
    estimate = training_memory(Model.from_proto(proto), batch_size=5)
    assert estimate.constants == 2 * 4000
    assert estimate.state == 2 * 4000
    tensor = 5 * 4000
    assert estimate.activations == tensor + tensor + 2 * tensor, "d in the place of b, e in that of a, and f"
    assert estimate.total > estimate.constants + estimate.state + estimate.activations


def test_nodes_run_depth_first_from_the_last_result():
    graph = parse_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[1] x) => (float[1] y, float[1] z) {
          [a] a = Relu (x)
          [b] b = Exp (a)
          [y] y = Neg (a)
          [c] c = Abs (x)
          [z] z = Add (b, c)
        }"""
    ).graph
    assert [n.name for n in execution_order(graph)] == ["c", "a", "b", "z", "y"]


def joint(example, rates, target="onnx"):
    if example == "resnet50":
        model = import_caffe(EXAMPLES / "imagenet" / "resnet50.prototxt").model
        model.graph.inputs[0].shape = ["N", 3, 64, 64]
    else:
        model = import_caffe(EXAMPLES / example / "net.prototxt").model
    pruner = BlockPruner.of(model)
    blocks = parse_blocks(",".join(f"{m.name}@{r}" for m in pruner.modules for r in rates), pruner)
    return joint_training_graph(pruner, blocks, Solver(momentum=0.9), target)


def finetuning(example, target="onnx"):
    model = import_caffe(EXAMPLES / example / "net.prototxt").model
    return build_training_graph(model, Solver(momentum=0.9), target=target)


def test_a_student_adds_state_but_few_activations():
    one, three = (training_memory(joint("digits", rates), 32) for rates in ((0.5,), (0.5, 0.5, 0.5)))
    assert three.state == 3 * one.state
    assert one.constants <= three.constants < 1.2 * one.constants
    assert one.activations <= three.activations < 1.7 * one.activations


@pytest.mark.parametrize("channels", [8, 32])
def test_pads_of_dilated_convolutions_take_memory(make_model, channels):
    """An operator of ours lays x out with its pads, and where that isn't in blocks of channels, dy too."""

    def activations(dilation, batch):
        text = f"""g (float[N,{channels},8,8] x) => (float[N,3] y)
        <float[{channels},{channels},3,3] w1, float[{channels},{channels},3,3] w2, float[3,{channels}] f> {{
          a = Conv<pads = [1,1,1,1]>(x, w1)
          b = Conv<pads = {[dilation] * 4}, dilations = {[dilation] * 2}>(a, w2)
          p = GlobalAveragePool(b)  q = Flatten(p)  y = Gemm<transB = 1>(q, f) }}"""
        model = make_model(text, w1=(channels, channels, 3, 3), w2=(channels, channels, 3, 3), f=(3, channels))
        return training_memory(build_training_graph(model, Solver(), target="native"), batch).activations

    more = (activations(12, 32) - activations(12, 16) - activations(1, 32) + activations(1, 16)) / (4 * channels * 16)
    copies, extents = (2, (8 + 1, 8 + 12)) if channels < 16 else (1, (8 + 2, 8 + 24))
    assert more == pytest.approx(copies * (extents[1] ** 2 - extents[0] ** 2))


MEASUREMENT = """
import ctypes, gc, json, resource, sys
import numpy as np
from pathlib import Path
from wootz.passes.ir.files import load
from wootz.runtime.session import Device, TrainingSession

graph = load(Path(sys.argv[1]))
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)
before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
session = TrainingSession(graph, Device(threads=1))
batch = int(sys.argv[2])
data = np.zeros((batch, *graph.graph.inputs[0].shape[1:]), np.float32)
labels = np.zeros(batch, np.int64) if session.interface.labels else None
for _ in range(3):
    session.step(data, labels, 0.01)
lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps(int(lines["VmHWM"].split()[0]) * 1024 - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("joint flowers", 64),
        ("joint flowers", 128),
        ("joint digits", 1024),
        ("joint resnet50", 4),
        ("fine-tune flowers", 64),
    ],
)
@pytest.mark.parametrize("target", ["onnx", "native"])
def test_the_estimate_is_within_20_percent_of_the_peak(tmp_path, name, batch, target, skip_unless_run_here):
    """Mostly activations in the small networks, mostly weights and their state in the ResNet-50."""
    kind, example = name.split()
    skip_unless_run_here(target)
    graph = joint(example, (0.3, 0.5, 0.7), target) if kind == "joint" else finetuning(example, target)
    save(graph, tmp_path / "graph.onnx")
    arguments = [sys.executable, "-c", MEASUREMENT, str(tmp_path / "graph.onnx"), str(batch)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert training_memory(graph, batch).total == pytest.approx(measured, rel=0.2)
