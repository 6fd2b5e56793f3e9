"""What measures the statistics of BatchNormalizations on batches."""

from __future__ import annotations

from dataclasses import replace

from wootz.passes.ir.model import Model
from wootz.passes.ir.rewrite import erase_dead_nodes
from wootz.passes.training.legalize import Legalize, Target
from wootz.passes.training.state import NEW_SUFFIX
from wootz.passes.training.training_mode import TrainingMode
from wootz.passes.transforms.strip_training import StripTraining


def batch_statistics(model: Model, target: Target = "onnx") -> Model:
    """`model`, whose BatchNormalizations normalise by the mean and the population variance of the batch that they see.

    These are its only outputs, under the names of the running statistics and `.new`; what follows the last of these
    layers is gone. Nothing else is as in training: Dropout drops nothing.

    Raises PassError for running statistics that are no constants, or that layers share.
    """
    inference = StripTraining().apply(replace(model, modules=())).model
    result = TrainingMode().apply(inference).model
    graph = result.graph
    layers = [node for node in graph.nodes if node.op == "BatchNormalization"]
    graph.outputs = [measured for layer in layers for measured in layer.outputs[1:]]
    erase_dead_nodes(graph)  # among them the running averages, which have the names
    for layer in layers:
        for statistic, measured in zip(layer.inputs[3:5], layer.outputs[1:], strict=True):
            measured.name = statistic.name + NEW_SUFFIX
    return Legalize(target=target).apply(result).model
