"""`training-mode`: from inference to training: batch statistics, running averages, dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Constant, Model, Node, Tensor, Variable
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.training.expression import Expression
from wootz.passes.training.merged_parameters import separate_merged_parameters
from wootz.passes.training.state import NEW_SUFFIX
from wootz.passes.transforms.fold_constants import FoldConstants

BATCH_MEAN, BATCH_VARIANCE = ".batch_mean", ".batch_var"
"""What names of the statistics of a batch end in, behind that of the output of the BatchNormalization."""


@dataclass(frozen=True)
class TrainingMode(Pass):
    """Lets BatchNormalization use the statistics of the batch, and Dropout drop.

    1. BatchNormalization gets `training_mode=1` and its outputs 2 and 3. Its own momentum becomes 0, so that these
       are the mean and variance of the batch, which the gradient needs; the running averages are computed beside it:
       `mean.new = momentum * mean + (1 - momentum) * batch_mean`, a graph output, and so for the variance. Where
       several nodes share them (a module that is called several times), each normalises by its own batch, and they are
       updated once for each, in the graph's order, as PyTorch does.
    2. Dropout gets `training_mode=true` and a seed of its own.
    3. Parameters that an exporter has merged, since they are equal before training, are separated again
       (`wootz.passes.training.merged_parameters`).

    4. What is computed from shapes is folded before (`fold-constants{weights=false}`).

    As ONNX defines it, the batch is normalised with its population variance (divided by n), and the running variance
    averages that. PyTorch and Caffe normalise alike, but average the sample variance (divided by n - 1).

    Refuses a BatchNormalization whose statistics are not constants. A network whose BatchNormalization is
    folded stays as it is, and so does a teacher with its BatchNormalization folded.
    """

    name: ClassVar[str] = "training-mode"
    momentum: float = option(0.9, "what the running averages keep of their old value each step")
    seed: int = option(0, "seed of the first Dropout; the next one gets seed + 1, and so on")

    def apply(self, model: Model) -> PassResult:
        folded = FoldConstants(weights=False).apply(model)
        result = folded.model
        graph = result.graph
        separated = separate_merged_parameters(graph)
        annotate_shapes(graph)
        batch_norms = [n for n in graph.nodes if n.op == "BatchNormalization" and not n.attrs.get("training_mode", 0)]
        dropouts = [n for n in graph.nodes if n.op == "Dropout"]
        builder = Builder(graph)
        running: dict[str, Tensor] = {}
        for node in batch_norms:
            self._use_batch_statistics(node, running, builder)
        for name, average in running.items():
            average.name = name + NEW_SUFFIX
            graph.outputs.append(average)
        for i, node in enumerate(dropouts):
            _switch_on(node, self.seed + i, builder)
        counts = {"batch-normalizations": len(batch_norms), "dropouts": len(dropouts), "separated": separated}
        return PassResult(result, folded.modified or any(counts.values()), counts)

    def _use_batch_statistics(self, node: Node, running: dict[str, Tensor], builder: Builder) -> None:
        """Lets `node` normalise by its batch, which the `running` averages (by statistic) then include."""
        mean, variance = node.inputs[3:5]
        for statistic in (mean, variance):
            if not isinstance(statistic, Constant):
                raise self.refuse(f"the running statistic {statistic.name} is not a constant", node.name)
        output = node.outputs[0].name
        batch = [Variable(output + kind, mean.dtype, mean.shape) for kind in (BATCH_MEAN, BATCH_VARIANCE)]
        node.attrs = {**node.attrs, "training_mode": 1, "momentum": 0.0}
        node.outputs = [node.outputs[0], *batch]
        for old, measured in zip((mean, variance), batch, strict=True):
            kept = Expression.of(running.get(old.name, old), builder) * self.momentum
            new = (kept + Expression.of(measured, builder) * (1.0 - self.momentum)).tensor
            new.dtype, new.shape = old.dtype, old.shape
            running[old.name] = new


def _switch_on(node: Node, seed: int, builder: Builder) -> None:
    data, ratio = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else Variable.empty()
    on = builder.constant(True, "dropout.training", dtype=bool)
    node.inputs = [data, ratio, on]
    node.attrs = {**node.attrs, "seed": seed}
