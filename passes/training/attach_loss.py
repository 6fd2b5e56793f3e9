"""`attach-loss`: puts a loss behind an output of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import Graph, Model, Tensor, Variable, tensor_shape
from wootz.passes.ir.rewrite import erase_dead_nodes
from wootz.passes.plan.lesson import LossKind
from wootz.passes.training.expression import Expression
from wootz.passes.training.losses import (
    absolute_error,
    binary_cross_entropy,
    distillation,
    logits_of,
    masked_cross_entropy,
    smooth_absolute_error,
    squared_error,
    without_sigmoid,
)
from wootz.passes.training.state import NEW_SUFFIX

Loss = Literal[LossKind, "distillation"]

TARGET = "target"
"""The input with what the network has to reach, unless it is given another name."""


@dataclass(frozen=True)
class AttachLoss(Pass):
    """Replaces an output of the network by a scalar loss, the mean over the batch.

    1. `softmax-cross-entropy`: against the input `labels` (int64[N], made when it is not there). A Softmax, LogSoftmax
       or Sigmoid at the end of the network, also one whose result only changes its layout, is dropped: its operand are
       the logits. With `label-smoothing` s, a label stands for probability 1 - s + s/classes, the other classes for
       s/classes (Szegedy et al. 2016, section 7). With `class-weights`, the mean is weighted: divided by the sum of the
       labels' weights. Scores [N, classes, …] have labels [N, …], one a position. What has
       the label `ignore-label` counts for nothing; a batch of nothing else has loss 0.
    2. `mse`: the mean of (output - target)², over all elements; the target is the tensor `target`, or a new input
       of that name. `l1`: that of d = |output - target|. `smooth-l1`: that of d²/2β where d is less than β, else of
       d - β/2 (Girshick 2015).
    3. `bce-with-logits`: the mean of -t log σ(x) - (1 - t) log(1 - σ(x)) with targets t from 0 to 1. A Sigmoid at the
       end of the network is dropped, as above.
    4. `distillation`: T² · KL(softmax(target / T) ‖ softmax(output / T)) with temperature T, the mean over the batch
       (Hinton et al. 2015, section 2); `target` names the teacher's logits.

    Refuses an output that is not there, one that leaves open which is meant, and a Softmax at the end whose classes a
    Reshape merges with something else.
    """

    name: ClassVar[str] = "attach-loss"
    loss: Loss = option("softmax-cross-entropy", f"one of {', '.join(get_args(Loss))}")
    output: str = option("", "the output that the loss replaces; by default the only one")
    loss_name: str = option("loss", "name of the scalar output")
    labels: str = option("labels", "softmax-cross-entropy: name of the input with the labels")
    label_smoothing: float = option(0.0, "softmax-cross-entropy: probability spread over all classes")
    class_weights: tuple[float, ...] = option((), "softmax-cross-entropy: one weight a class")
    ignore_label: int | None = option(None, "softmax-cross-entropy: the label that counts for nothing")
    beta: float = option(1.0, "smooth-l1: the difference from which on it is linear")
    target: str = option(TARGET, "the other losses: the tensor, or new input, to be reached")
    temperature: float = option(1.0, "distillation: divides the logits of both networks")
    scale: float = option(1.0, "factor of the loss")
    plus: str = option("", "a scalar output that is added to the loss, such as that of distill")

    def apply(self, model: Model) -> PassResult:
        self._check_options()
        result = model.copy()
        graph = result.graph
        annotate_symbolic_shapes(graph)
        added = self._added(graph)
        output = self._chosen_output(graph)
        builder = Builder(graph, prefix=f"{self.loss_name}/")
        if output.shape is None:
            raise self.refuse("its shape is not known", output.name)
        match self.loss:
            case "softmax-cross-entropy":
                loss = self._softmax_cross_entropy(output, graph, builder)
            case "mse":
                loss = squared_error(*self._pair(output, graph, builder))
            case "l1":
                loss = absolute_error(*self._pair(output, graph, builder))
            case "smooth-l1":
                loss = smooth_absolute_error(*self._pair(output, graph, builder), beta=self.beta)
            case "bce-with-logits":
                logits = without_sigmoid(output, builder)
                loss = binary_cross_entropy(*self._pair(logits, graph, builder))
            case "distillation":
                logits = logits_of(output, builder, self)
                loss = distillation(*self._pair(logits, graph, builder), temperature=self.temperature)
            case _:
                raise self.refuse(f"no loss {self.loss!r}: one of {', '.join(get_args(Loss))}")
        scaled = loss * self.scale if self.scale != 1.0 else loss
        tensor = (scaled + Expression.of(added, builder) if added is not None else scaled).tensor
        tensor.name, tensor.dtype, tensor.shape = self.loss_name, output.dtype, ()
        graph.outputs = [tensor if t is output else t for t in graph.outputs if t is not added]
        erase_dead_nodes(graph)
        return PassResult(result, True)

    def _check_options(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise self.refuse(f"label-smoothing has to be at least 0 and at most 1, not {self.label_smoothing}")
        if not 0 < self.temperature < math.inf:
            raise self.refuse(f"temperature has to be more than 0, not {self.temperature}")
        if not 0 < self.beta < math.inf:
            raise self.refuse(f"beta has to be more than 0, not {self.beta}")
        if not math.isfinite(self.scale):
            raise self.refuse(f"scale has to be finite, not {self.scale}")
        if self.class_weights and not (min(self.class_weights) >= 0 and 0 < sum(self.class_weights) < math.inf):
            raise self.refuse("class-weights have to be at least 0, and one of them more")

    def _added(self, graph: Graph) -> Tensor | None:
        """What is added to the loss."""
        if not self.plus:
            return None
        found = next((t for t in graph.outputs if t.name == self.plus), None)
        if found is None or tensor_shape(found) != ():
            raise self.refuse(f"there is no scalar output named {self.plus!r} to be added to the loss")
        return found

    def _chosen_output(self, graph: Graph) -> Tensor:
        """The output to replace. What already ends in `.new` is state, not an output of the network."""
        candidates = [t for t in graph.outputs if not t.name.endswith(NEW_SUFFIX) and t.name != self.plus]
        names = ", ".join(t.name for t in candidates)
        if self.loss_name in graph.tensors():
            raise self.refuse(f"there is already a tensor named {self.loss_name}: choose another loss-name")
        if self.output:
            candidates = [t for t in candidates if t.name == self.output]
            if not candidates:
                raise self.refuse(f"no output named {self.output!r} (outputs: {names})")
        if len(candidates) != 1:
            raise self.refuse(f"the model has {len(candidates)} outputs ({names}): choose one with output=NAME")
        return candidates[0]

    def _softmax_cross_entropy(self, output: Tensor, graph: Graph, builder: Builder) -> Expression:
        logits = logits_of(output, builder, self)
        labels = _input(graph, self.labels, np.int64, [logits.shape[0], *logits.shape[2:]])
        weights = self._class_weights(logits, builder)
        if self.ignore_label is not None:
            scores, classes = Expression.of(logits, builder), Expression.of(labels, builder)
            weighted = Expression.of(weights[0], builder) if weights else None
            return masked_cross_entropy(scores, classes, self.ignore_label, self.label_smoothing, weighted)
        loss, log_probability = builder.ops(
            "SoftmaxCrossEntropyLoss", logits, labels, *weights, count=2, hint="cross_entropy", reduction="mean"
        )
        loss.dtype = log_probability.dtype = logits.dtype
        loss.shape, log_probability.shape = (), logits.shape
        hard = Expression.of(loss, builder)
        if not self.label_smoothing:
            return hard
        return hard * (1.0 - self.label_smoothing) + self._smooth(logits, labels, weights, builder)

    def _smooth(self, logits: Tensor, labels: Tensor, weights: list[Tensor], builder: Builder) -> Expression:
        """-s/classes · Σ_class w log p, averaged like the rest of the loss."""
        log_probability = Expression.of(logits, builder).op("LogSoftmax", axis=1)
        classes = int(logits.shape[1])
        if not weights:
            return log_probability.mean(keepdims=False) * -self.label_smoothing
        if len(logits.shape) != 2:
            raise self.refuse("label-smoothing with class-weights needs logits of shape [N, classes]", logits.name)
        weighted = (log_probability * Expression.of(weights[0], builder)).sum(keepdims=False)
        total = Expression.of(weights[0], builder).op("Gather", Expression.of(labels, builder)).sum(keepdims=False)
        return weighted / total * (-self.label_smoothing / classes)

    def _class_weights(self, logits: Tensor, builder: Builder) -> list[Tensor]:
        if not self.class_weights:
            return []
        if len(self.class_weights) != logits.shape[1]:
            raise self.refuse(f"{len(self.class_weights)} class-weights for {logits.shape[1]} classes", logits.name)
        return [builder.constant(self.class_weights, "class_weights", dtype=logits.dtype)]

    def _pair(self, output: Tensor, graph: Graph, builder: Builder) -> tuple[Expression, Expression]:
        """What is compared: the output, or its logits, and the target."""
        target = graph.tensors().get(self.target)
        if target is None:
            target = _input(graph, self.target, output.dtype, list(output.shape))
        return Expression.of(output, builder), Expression.of(target, builder)


def _input(graph: Graph, name: str, dtype: type, shape: list[int | str]) -> Tensor:
    """The graph input `name`, made where there is none."""
    for tensor in graph.inputs:
        if tensor.name == name:
            return tensor
    tensor = Variable(name, dtype, shape)
    graph.inputs.append(tensor)
    return tensor
