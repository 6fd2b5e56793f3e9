from __future__ import annotations

import numpy as np
import pytest

from wootz.passes.errors import InputError

TIMES, BATCH, FEATURES, HIDDEN = 4, 3, 5, 2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def sequence(random) -> list[np.ndarray]:
    marks = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]], np.float32)
    return [random.normal(size=(TIMES, BATCH, FEATURES)).astype(np.float32), marks]


@pytest.mark.parametrize("has_static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_lstm(run_layer, random, close, sequence, has_static, exposed) -> None:
    weights = [random.normal(size=s) for s in [(4 * HIDDEN, FEATURES), (4 * HIDDEN,), (4 * HIDDEN, HIDDEN)]]
    inputs, fixed = list(sequence), 0
    h, c = (np.zeros((1, BATCH, HIDDEN), np.float32) for _ in range(2))
    if has_static:
        extra, extra_weight = random.normal(size=(BATCH, 3)).astype(np.float32), random.normal(size=(4 * HIDDEN, 3))
        inputs.append(extra)
        weights.insert(2, extra_weight)
        fixed = extra @ extra_weight.T
    if exposed:
        h, c = (random.normal(size=(1, BATCH, HIDDEN)).astype(np.float32) for _ in range(2))
        inputs += [h, c]
    x, marks = sequence
    outputs = []
    for t in range(TIMES):
        mark = marks[t][:, None]
        gates = x[t] @ weights[0].T + weights[1] + fixed + (mark * h) @ weights[-1].T
        i, f, o, g = np.split(gates[0] if gates.ndim == 3 else gates, 4, axis=1)
        c = sigmoid(f) * (mark * c) + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h.reshape(BATCH, HIDDEN))
    text = f'type: "LSTM" recurrent_param {{ num_output: 2 expose_hidden: {str(exposed).lower()} }}'
    found = run_layer(text, inputs, weights, tops=3 if exposed else 1)
    first = found[0] if exposed else found
    close(first, np.array(outputs, np.float32))
    if exposed:
        close(found[1], h.astype(np.float32))
        close(found[2], c.astype(np.float32))


def test_rnn(run_layer, random, close, sequence) -> None:
    shapes = [(HIDDEN, FEATURES), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN,)]
    weights = [random.normal(size=s) for s in shapes]
    x, marks = sequence
    h = np.zeros((BATCH, HIDDEN))
    outputs = []
    for t in range(TIMES):
        h = np.tanh(x[t] @ weights[0].T + weights[1] + (marks[t][:, None] * h) @ weights[2].T)
        outputs.append(np.tanh(h @ weights[3].T + weights[4]))
    close(run_layer('type: "RNN" recurrent_param { num_output: 2 }', sequence, weights), np.array(outputs, np.float32))


def test_indicators_of_another_shape_are_refused(load) -> None:
    with pytest.raises(InputError, match="the sequence indicators have shape 4×2, the input 4×3×5"):
        load("""input: "x" input_shape { dim: 4 dim: 3 dim: 5 } input: "cont" input_shape { dim: 4 dim: 2 }
            layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 2 } }""")


def fork_lstm(x: np.ndarray, marks: np.ndarray, weight: np.ndarray, recurrent: np.ndarray, bias: np.ndarray):
    """[T, N, H], step by step (`LstmLayer::Forward_cpu` of the fork); `marks` is 0 where a sequence begins."""
    steps, batch, _ = x.shape
    size = recurrent.shape[1]
    hidden, cell, outputs = np.zeros((batch, size)), np.zeros((batch, size)), []
    for t in range(steps):
        for n in range(batch):
            gates = weight @ x[t, n] + bias
            if marks[t, n]:
                gates = gates + recurrent @ hidden[n]
            enter, forget, leave = 1 / (1 + np.exp(-gates[: 3 * size].reshape(3, size)))
            kept = forget * cell[n] if marks[t, n] else 0
            cell[n] = kept + enter * np.tanh(gates[3 * size :])
            hidden[n] = leave * np.tanh(cell[n])
        outputs.append(hidden.copy())
    return np.stack(outputs)


@pytest.mark.parametrize("form", ["sequence", "rows", "marked"])
def test_the_lstm_of_a_fork(run_layer, random, close, form) -> None:
    steps, batch, features, size = 4, 2, 3, 5
    x = random.normal(size=(steps, batch, features)).astype(np.float32)
    blobs = [random.normal(size=s).astype(np.float32) for s in ((4 * size, features), (4 * size, size), (4 * size,))]
    marks = np.ones((steps, batch))
    marks[0] = 0
    layer = f'type: "Lstm" lstm_param {{ num_output: {size} clipping_threshold: 0.1'
    if form == "sequence":
        found = run_layer(f"{layer} }}", x, blobs)
        close(found, fork_lstm(x, marks, *blobs))
        return
    inputs = [x.reshape(steps * batch, features)]
    if form == "marked":
        marks[2, 1] = 0
        inputs.append(marks.reshape(-1).astype(np.float32))
    found = run_layer(f"{layer} batch_size: {batch} }}", inputs, blobs)
    close(found, fork_lstm(x, marks, *blobs).reshape(steps * batch, size))
