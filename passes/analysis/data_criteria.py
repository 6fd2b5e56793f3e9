"""Criteria that look at what a network does with data: activations and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wootz.passes.analysis.channels import ChannelAnalysis
from wootz.passes.analysis.importance import filters_of
from wootz.passes.analysis.index_maps import varying_axes
from wootz.passes.arrays import read_npz
from wootz.passes.base import Evaluator
from wootz.passes.errors import WootzError, reading
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Model, constants
from wootz.passes.pipeline import parse_pipeline, run_pipeline

DATA_CRITERIA = ("apoz", "taylor")
LABELS = "labels"
RELU = {"Relu", "PRelu", "LeakyRelu", "Clip"}


@dataclass(frozen=True, eq=False)
class Sample:
    """Inputs by name, and for `taylor` also int64 `labels`, with something to run the network on them."""

    feeds: Mapping[str, np.ndarray]
    evaluate: Evaluator


def read_sample(file: Path, evaluate: Evaluator | None) -> Sample:
    """The sample in an `.npz` file, whose arrays are named as the network's inputs. Raises InputError."""
    if evaluate is None:
        raise WootzError("a criterion that looks at data needs something to execute the network: none was given")
    with reading(file, "an .npz file of arrays"):
        return Sample(read_npz(file), evaluate)


def data_scores(model: Model, analysis: ChannelAnalysis, criterion: str, sample: Sample) -> np.ndarray:
    """The importance of each filter: float64[atoms]. Raises WootzError when `sample` lacks an input or labels."""
    wanted = {t.name for t in model.graph.inputs} | ({LABELS} if criterion == "taylor" else set())
    if missing := sorted(wanted - sample.feeds.keys()):
        raise WootzError(
            f"criterion {criterion}: the data has no array {missing[0]!r} (it has {', '.join(sample.feeds)})"
        )
    feeds = {name: sample.feeds[name] for name in wanted}
    if criterion == "apoz":
        return active_shares(model, analysis, feeds, sample.evaluate)
    return taylor(model, analysis, feeds, sample.evaluate)


def active_shares(
    model: Model, analysis: ChannelAnalysis, feeds: Mapping[str, np.ndarray], evaluate: Evaluator
) -> np.ndarray:
    """1 - APoZ: the share of activations above zero (Hu et al. 2016, "Network Trimming"): [atoms].

    It is measured behind activations that can be zero, and directly behind layers that have none.
    """
    watched = {}
    extended = model.copy()
    graph, builder = extended.graph, Builder(extended.graph, "apoz/")
    graph.outputs = []
    behind = {node.outputs[0].name for node in graph.nodes if node.op in RELU}
    own = {graph.nodes[layer.node].outputs[0].name for layer in analysis.layers}
    tensors = graph.tensors()
    for name in [*sorted(own & analysis.maps.keys()), *sorted(behind & analysis.maps.keys())]:
        axes = varying_axes(analysis.maps[name])
        if len(axes) == 1:
            rank = analysis.maps[name].ndim
            others = builder.constant([a for a in range(rank) if a != axes[0]])
            zero = builder.op("CastLike", builder.constant(0.0), tensors[name])
            is_active = builder.op("Greater", tensors[name], zero)
            share = builder.op("ReduceMean", builder.op("Cast", is_active, to=1), others, keepdims=0)
            share.dtype = np.dtype(np.float32)
            graph.outputs.append(share)
            watched[share.name] = analysis.maps[name].ravel()
    measured = evaluate(extended, feeds) if watched else {}
    scores = np.zeros(len(analysis.channel_of))
    for output, atoms in watched.items():  # activations come after the layers before them
        scores[atoms[atoms >= 0]] = measured[output][atoms >= 0]
    return scores


def taylor(model: Model, analysis: ChannelAnalysis, feeds: Mapping[str, np.ndarray], evaluate: Evaluator) -> np.ndarray:
    """(Σ weight · gradient)² of each filter: how much the loss changes without it, to first order: [atoms].

    Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", equation 8; the loss is the
    cross-entropy of the sample.
    """
    if len(model.graph.outputs) != 1:
        raise WootzError(
            f"criterion taylor: its loss is the cross-entropy of one output, and the network has "
            f"{len(model.graph.outputs)} ({', '.join(t.name for t in model.graph.outputs)}): take another criterion"
        )
    training = run_pipeline(model, parse_pipeline("attach-loss,build-gradients,legalize")).model
    gradients = evaluate(training, feeds)
    weights = constants(model.graph)
    scores = np.zeros(len(analysis.channel_of))
    for layer in analysis.layers:
        if f"{layer.weight}.grad" in gradients:
            products = weights[layer.weight].astype(np.float64) * gradients[f"{layer.weight}.grad"]
            scores[layer.atoms] = np.square(filters_of(products, layer).sum(1))
    return scores
