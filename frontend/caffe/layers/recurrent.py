"""LSTM and RNN, unrolled over the time steps as Caffe's `RecurrentLayer` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wootz.frontend.caffe.lowering import Site, Value, filled
from wootz.frontend.caffe.schema import NoEffect, Unsigned
from wootz.frontend.caffe.shape import Shape, count, static, text
from wootz.frontend.caffe.weights import Expected
from wootz.passes.fillers import ZERO, Filler
from wootz.passes.ir.model import Constant, Tensor

LARGEST_UNROLLING = 1024
"""Time steps; each is a dozen nodes."""


@dataclass(frozen=True)
class RecurrentParameter:
    num_output: Unsigned
    weight_filler: Filler = ZERO
    bias_filler: Filler = ZERO
    expose_hidden: bool = False
    debug_info: NoEffect | None = None


@dataclass(frozen=True)
class LstmParameter:
    """LstmParameter of the fork that has had an LSTM of its own since 2014; clipping concerns gradients alone."""

    num_output: Unsigned
    weight_filler: Filler = ZERO
    bias_filler: Filler = ZERO
    batch_size: Unsigned | None = None
    clipping_threshold: NoEffect | None = None


@dataclass(frozen=True)
class _Sequence:
    """What both layers start from: the input's part for each time step, and the factor that forgets what was before."""

    steps: list[Tensor]
    """Each [1, batch, features]: the input's part of the gates."""
    continues: list[Tensor]
    """Each [1, batch, 1]: 0 where a sequence begins."""
    hidden: int
    batch: Shape


def lstm(site: Site, p: RecurrentParameter) -> list[Value]:
    """c' = f·(cont·c) + i·g, h' = o·tanh(c'), the gates in the order i, f, o, g (`lstm_unit_layer.cpp`)."""
    sequence, recurrent, _ = _prepared(site, p, gates=4, state_inputs=2)
    hidden, cell = _initial(site, p, sequence, 2)
    outputs = []
    for step, continues in zip(sequence.steps, sequence.continues, strict=True):
        kept, remembered = site.op("Mul", hidden, continues), site.op("Mul", cell, continues)
        hidden, cell = _lstm_step(site, step, kept, remembered, recurrent, sequence.hidden)
        outputs.append(hidden)
    return _tops(site, p, sequence, outputs, [hidden, cell])


def _lstm_step(
    site: Site, step: Tensor, hidden: Tensor, cell: Tensor, recurrent: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The hidden state and the cell after a step, from those before it."""
    gates = site.op("Add", step, site.op("MatMul", hidden, recurrent))
    parts = site.ops("Split", gates, site.constant([size] * 4, "gates"), count=4, axis=2)
    enter, forget, leave = (site.op("Sigmoid", part) for part in parts[:3])
    cell = site.op("Add", site.op("Mul", forget, cell), site.op("Mul", enter, site.op("Tanh", parts[3])))
    return site.op("Mul", leave, site.op("Tanh", cell)), cell


def fork_lstm(site: Site, p: LstmParameter) -> Value:
    """`Lstm`, the fork's: LSTM whose blobs are the input's weight, the recurrent weight and the bias.

    A bottom of [T, N, …] gives [T, N, H]. Others hold T·N rows, of which `batch_size` (1) belong to each step, and give
    [T·N, H]. A second bottom, [T·N], is 0 where a sequence begins; without it the first step begins one.
    """
    site.expect_inputs(1, 2)
    x, size = site.input, int(p.num_output)
    rows = static(x.shape[0])
    is_sequence = len(x.shape) == 3 and p.batch_size in (None, x.shape[1])
    batch = static(x.shape[1]) if is_sequence else int(p.batch_size or 1)
    if not is_sequence and (batch < 1 or rows % batch):
        raise site.error(f"{rows} rows can't be divided into batches of {batch}")
    times = rows if is_sequence else rows // batch
    if times > LARGEST_UNROLLING:
        raise site.error(f"{times} time steps: up to {LARGEST_UNROLLING} are unrolled")
    features = static(count(x.shape[2:] if is_sequence else x.shape[1:]))
    weight, recurrent, bias = site.parameters(
        filled(0, "weight", (4 * size, features), p.weight_filler),
        filled(1, "recurrent_weight", (4 * size, size), p.weight_filler),
        filled(2, "bias", (4 * size,), p.bias_filler),
    )
    flat = site.reshape(x.tensor, x.shape, (times, batch, features))
    projected = site.op("Add", site.op("MatMul", flat, _transposed(site, weight)), bias)
    marks: list[Tensor] = []
    if len(site.inputs) == 2:
        if count(site.inputs[1].shape) != times * batch:
            raise site.error(f"its marks have shape {text(site.inputs[1].shape)}, {times}·{batch} are wanted")
        marks = _split(site, site.reshape(site.inputs[1].tensor, site.inputs[1].shape, (times, batch, 1)), times)
    hidden: Tensor = site.constant(np.zeros((1, 1, size), np.float32), "zeros")
    cell, outputs, transposed = hidden, [], _transposed(site, recurrent)
    for i, step in enumerate(_split(site, projected, times)):
        if marks:
            hidden, cell = site.op("Mul", hidden, marks[i]), site.op("Mul", cell, marks[i])
        hidden, cell = _lstm_step(site, step, hidden, cell, transposed, size)
        outputs.append(hidden)
    joined = outputs[0] if len(outputs) == 1 else site.op("Concat", *outputs, axis=0)
    whole: Shape = (times, batch, size)
    shape = whole if is_sequence else (rows, size)
    return Value(site.reshape(joined, whole, shape), shape)


def rnn(site: Site, p: RecurrentParameter) -> list[Value]:
    """h' = tanh(W_hh·(cont·h) + W_xh·x + b_h), o = tanh(W_ho·h' + b_o)."""
    sequence, recurrent, output = _prepared(site, p, gates=1, state_inputs=1)
    (hidden,) = _initial(site, p, sequence, 1)
    outputs = []
    for step, continues in zip(sequence.steps, sequence.continues, strict=True):
        kept = site.op("Mul", hidden, continues)
        hidden = site.op("Tanh", site.op("Add", step, site.op("MatMul", kept, recurrent)))
        weight, bias = output
        outputs.append(site.op("Tanh", site.op("Add", site.op("MatMul", hidden, weight), bias)))
    return _tops(site, p, sequence, outputs, [hidden])


def _prepared(
    site: Site, p: RecurrentParameter, gates: int, state_inputs: int
) -> tuple[_Sequence, Tensor, list[Tensor]]:
    """The sequence, the transposed recurrent weight, and for an RNN the output's transposed weight and bias."""
    states = state_inputs if p.expose_hidden else 0
    site.expect_inputs(2 + states, 3 + states)
    has_static = len(site.inputs) == 3 + states
    x, continues = site.inputs[:2]
    times, batch = static(x.shape[0]), x.shape[1]
    if continues.shape != (times, batch):
        raise site.error(f"the sequence indicators have shape {text(continues.shape)}, the input {text(x.shape)}")
    if has_static and (len(site.inputs[2].shape) < 2 or site.inputs[2].shape[0] != batch):
        raise site.error(f"the static input has shape {text(site.inputs[2].shape)}, the batch is {batch}")
    for state in site.inputs[len(site.inputs) - states :]:
        if state.shape != (1, batch, int(p.num_output)):
            wanted = text((1, batch, int(p.num_output)))
            raise site.error(f"a hidden state has shape {text(state.shape)}, {wanted} is wanted")
    if times > LARGEST_UNROLLING:
        raise site.error(f"{times} time steps: up to {LARGEST_UNROLLING} are unrolled")
    features = static(count(x.shape[2:]))
    hidden, rows = int(p.num_output), gates * int(p.num_output)
    input_weight, input_bias, *rest = site.parameters(*_expected(site, p, rows, features, has_static, gates))
    flat = site.reshape(x.tensor, x.shape, (times, batch, features))
    projected = site.op("Add", site.op("MatMul", flat, _transposed(site, input_weight)), input_bias)
    if has_static:
        projected = site.op("Add", projected, _static_part(site, rest.pop(0), rows))
    steps = _split(site, projected, times)
    marks = site.op("Unsqueeze", continues.tensor, site.constant([2], "axis"))
    output = [_transposed(site, rest[1]), rest[2]] if len(rest) > 1 else []
    return _Sequence(steps, _split(site, marks, times), hidden, (batch,)), _transposed(site, rest[0]), output


def _expected(
    site: Site, p: RecurrentParameter, rows: int, features: int, has_static: bool, gates: int
) -> list[Expected]:
    hidden = int(p.num_output)
    expected = [
        filled(0, "weight", (rows, features), p.weight_filler),
        filled(1, "bias", (rows,), p.bias_filler),
    ]
    if has_static:
        static_features = count(site.inputs[2].shape[1:])
        expected.append(filled(2, "static_weight", (rows, static_features), p.weight_filler))
    expected.append(filled(len(expected), "recurrent_weight", (rows, hidden), p.weight_filler))
    if gates == 1:
        expected.append(filled(len(expected), "output_weight", (hidden, hidden), p.weight_filler))
        expected.append(filled(len(expected), "output_bias", (hidden,), p.bias_filler))
    return expected


def _static_part(site: Site, weight: Constant, rows: int) -> Tensor:
    extra = site.inputs[2]
    flat = site.reshape(extra.tensor, extra.shape, (extra.shape[0], count(extra.shape[1:])))
    return site.op("MatMul", flat, _transposed(site, weight))


def _initial(site: Site, p: RecurrentParameter, sequence: _Sequence, number: int) -> list[Tensor]:
    """The states before the first step: the last bottoms, or zeros."""
    if p.expose_hidden:
        return [v.tensor for v in site.inputs[-number:]]
    zeros = site.constant([[[0.0] * sequence.hidden]], "zeros")
    return [site.op("Mul", sequence.continues[0], zeros)] * number


def _tops(
    site: Site, p: RecurrentParameter, sequence: _Sequence, outputs: Sequence[Tensor], states: Sequence[Tensor]
) -> list[Value]:
    (batch,) = sequence.batch
    joined = outputs[0] if len(outputs) == 1 else site.op("Concat", *outputs, axis=0)
    tops = [Value(joined, (len(outputs), batch, sequence.hidden))]
    if p.expose_hidden:
        tops += [Value(state, (1, batch, sequence.hidden)) for state in states]
    return tops


def _split(site: Site, x: Tensor, times: int) -> list[Tensor]:
    if times == 1:
        return [x]
    return list(site.ops("Split", x, site.constant([1] * times, "steps"), count=times, axis=0))


def _transposed(site: Site, weight: Tensor) -> Tensor:
    return site.op("Transpose", weight, perm=[1, 0])
