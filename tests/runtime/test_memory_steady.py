"""A long training takes no more memory than a short one, on either path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STEPS, WARM_UP = 11_000, 1_000
ALLOWED = 1 << 20
"""Bytes over 10,000 steps: a leak of one small object a step is more. The loss curve takes 40 kB."""

PROGRAM = f"""
import resource
import sys
from pathlib import Path

import numpy as np

from wootz.passes.ir.text import parse_text
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.training.training_graph import build_training_graph
from wootz.runtime.batches import training_batches
from wootz.runtime.data.dataset import Split
from wootz.runtime.resident import ResidentSteps, with_batches
from wootz.runtime.schedule import training_schedule
from wootz.runtime.session import Device, TrainingSession
from wootz.runtime.training import HostSteps, train

network = parse_text('''<ir_version: 8, opset_import: ["" : 18]>
    g (float[N,2,4,4] x) => (float[N,4] y) <float[4,2,3,3] w = {{{", ".join(["0.1", "-0.2"] * 36)}}}> {{
      c = Conv(x, w)
      r = Relu(c)
      p = GlobalAveragePool(r)
      y = Flatten(p)
    }}''')
labels = np.arange(40) % 4
split = Split((np.arange(40 * 50) % 251).astype(np.uint8).reshape(40, 2, 5, 5), labels)
transform = InputTransform(scale=(1 / 255,), crop_size=4, mirror=True)
solver = Solver(base_lr=0.001, momentum=0.9, max_iter={STEPS}, batch_size=8)
graph = build_training_graph(network, solver)
if sys.argv[1] == "host":
    batches = training_batches(split, transform, 8, {STEPS}, 0)
    steps = HostSteps(TrainingSession(graph, Device(threads=1), 8), batches, solver)
else:
    graph = with_batches(graph, split, transform, solver)
    schedule = training_schedule(40, (5, 5), transform, 8, {STEPS}, 0)
    steps = ResidentSteps(graph, TrainingSession(graph, Device(threads=1)), split, schedule, solver)


def resident_set():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


held = {{}}


def on_step(done, losses):
    if done in ({WARM_UP}, {STEPS}):
        held[done] = resident_set()


train(steps, solver, on_step=on_step)
print(held[{STEPS}] - held[{WARM_UP}])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the resident set is read from /proc")
@pytest.mark.parametrize("batches", ["host", "device"])
def test_memory_is_steady_over_ten_thousand_steps(batches):
    done = subprocess.run([sys.executable, "-c", PROGRAM, batches], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < ALLOWED
