"""Ten steps of every solver equal Caffe's formulas, transcribed to NumPy in double precision.

Sources: caffe/src/caffe/solvers/*_solver.cpp; ApplyUpdate, ClipGradients, Normalize and Regularize of sgd_solver.cpp.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wootz.passes.ir.model import MULTIPLIERS_KEY, Model
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.interface import TrainingInterface
from wootz.passes.training.training_graph import build_training_graph

CLASSES, FEATURES, BATCH, STEPS = 3, 5, 8, 10
NETWORK = f"""
g (float[N,{FEATURES}] x) => (y) <float[{FEATURES},{CLASSES}] w, float[{CLASSES}] b> {{
  h = MatMul(x, w)
  y = Add(h, b)
}}"""
MULTIPLIERS = {"w": (1.0, 1.0), "b": (2.0, 0.0)}
DELTA = 1e-4


def gradients(parameters, x, labels):
    """Of the softmax cross-entropy of x w + b."""
    logits = x @ parameters["w"] + parameters["b"]
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    dlogits = (probability - np.eye(CLASSES)[labels]) / len(x)
    return {"w": x.T @ dlogits, "b": dlogits.sum(0)}


def sgd(s, g, rate, h, t):
    h[0] = s.momentum * h[0] + rate * g
    return h[0]


def nesterov(s, g, rate, h, t):
    before = h[0]
    h[0] = s.momentum * h[0] + rate * g
    return (1 + s.momentum) * h[0] - s.momentum * before


def adagrad(s, g, rate, h, t):
    h[0] = h[0] + g**2
    return rate * g / (np.sqrt(h[0]) + s.delta)


def rmsprop(s, g, rate, h, t):
    h[0] = s.rms_decay * h[0] + (1 - s.rms_decay) * g**2
    return rate * g / (np.sqrt(h[0]) + s.delta)


def adadelta(s, g, rate, h, t):
    h[0] = s.momentum * h[0] + (1 - s.momentum) * g**2
    update = g * np.sqrt((h[1] + s.delta) / (h[0] + s.delta))
    h[1] = s.momentum * h[1] + (1 - s.momentum) * update**2
    return rate * update


def adam(s, g, rate, h, t):
    h[0] = s.momentum * h[0] + (1 - s.momentum) * g
    h[1] = s.momentum2 * h[1] + (1 - s.momentum2) * g**2
    correction = np.sqrt(1 - s.momentum2**t) / (1 - s.momentum**t)
    return rate * correction * h[0] / (np.sqrt(h[1]) + s.delta)


CAFFE = {"SGD": sgd, "Nesterov": nesterov, "AdaGrad": adagrad, "RMSProp": rmsprop, "AdaDelta": adadelta, "Adam": adam}


def train_like_caffe(solver, parameters, batches, rate):
    parameters = {n: v.astype(np.float64) for n, v in parameters.items()}
    history = {n: [np.zeros_like(v), np.zeros_like(v)] for n, v in parameters.items()}
    groups = [batches[i : i + solver.iter_size] for i in range(0, len(batches), solver.iter_size)]
    for t, group in enumerate(groups, 1):
        computed = [gradients(parameters, x.astype(np.float64), labels) for x, labels in group]
        diff = {n: sum(c[n] for c in computed) for n in parameters}
        norm = np.sqrt(sum((d**2).sum() for d in diff.values()))
        clip = solver.clip_gradients
        for n, w in parameters.items():
            lr_mult, decay_mult = MULTIPLIERS[n]
            g = diff[n] * (clip / norm if 0 <= clip < norm else 1.0) / solver.iter_size
            g = g + solver.weight_decay * decay_mult * (w if solver.regularization_type == "L2" else np.sign(w))
            parameters[n] = w - CAFFE[solver.type.value](solver, g, rate * lr_mult, history[n], t)
    return parameters


@pytest.mark.parametrize("kind", CAFFE)
@settings(max_examples=12)
@given(
    regularization=st.sampled_from(["L1", "L2"]),
    decay=st.sampled_from([0.0, 0.01, 0.2]),
    clip=st.sampled_from([-1.0, 0.1, 0.5, 100.0]),
    iter_size=st.sampled_from([1, 2]),
    momentum=st.sampled_from([0.5, 0.9, 0.95]),
    seed=st.integers(0, 99),
)
def test_ten_steps(kind, regularization, decay, clip, iter_size, momentum, seed, make_model, run, values_of):
    solver = Solver(
        type=SolverType(kind),
        momentum=0.0 if kind in ("AdaGrad", "RMSProp") else momentum,
        rms_decay=momentum,
        delta=DELTA,
        weight_decay=decay,
        regularization_type=regularization,
        clip_gradients=clip,
        iter_size=iter_size,
    )
    network = Model(make_model(NETWORK, seed, w=(FEATURES, CLASSES), b=(CLASSES,)).graph)
    network.metadata[MULTIPLIERS_KEY] = '{"b": [2, 0]}'
    graph = build_training_graph(network, solver)
    rng = np.random.default_rng(seed)
    runs = STEPS * iter_size
    batches = [
        (rng.normal(size=(BATCH, FEATURES)).astype(np.float32), rng.integers(0, CLASSES, BATCH)) for _ in range(runs)
    ]
    interface = TrainingInterface.of(graph)
    values = values_of(graph)
    state = {slot.input: values[slot.input] for slot in interface.slots}
    for x, labels in batches:
        outputs = run(graph, {"x": x, "labels": labels, "learning_rate": np.array(0.05, np.float32), **state})
        state = {slot.input: outputs[slot.output] for slot in interface.slots}
    start = {n: v for n, v in values_of(network).items() if n in MULTIPLIERS}
    for name, expected in train_like_caffe(solver, start, batches, 0.05).items():
        assert np.abs(state[name] - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max()), name


def test_every_solver_of_caffe_is_transcribed():
    assert {kind.value for kind in SolverType} - set(CAFFE) == {"AdamW"}, "AdamW is not Caffe's"
