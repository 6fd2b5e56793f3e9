"""What measures the statistics of BatchNormalizations on batches."""

from __future__ import annotations

from dataclasses import replace

from wootz.passes.ir.model import Model
from wootz.passes.ir.rewrite import erase_dead_nodes
from wootz.passes.training.legalize import Legalize, Target
from wootz.passes.training.training_mode import TrainingMode
from wootz.passes.transforms.strip_training import StripTraining


def batch_statistics(model: Model, target: Target = "onnx") -> Model:
    """`model`, whose BatchNormalizations normalise by the mean and the population variance of the batch that they see.

    These are its only outputs, under the names of the layers' outputs and BATCH_MEAN and BATCH_VARIANCE; what follows
    the last of these layers is gone. Nothing else is as in training: Dropout drops nothing.

    Raises PassError for running statistics that are no constants.
    """
    inference = StripTraining().apply(replace(model, modules=())).model
    result = TrainingMode().apply(inference).model
    graph = result.graph
    graph.outputs = [
        measured for node in graph.nodes if node.op == "BatchNormalization" for measured in node.outputs[1:]
    ]
    erase_dead_nodes(graph)
    return Legalize(target=target).apply(result).model
