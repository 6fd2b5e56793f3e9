"""`distill`: the full network beside a pruned one, and a loss that is small where both give the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from wootz.passes.analysis.class_scores import axis_behind, last_activation, softmax_axis
from wootz.passes.analysis.symbolic_values import annotate_symbolic_shapes
from wootz.passes.base import Pass, PassResult, option
from wootz.passes.errors import WootzError
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.files import load
from wootz.passes.ir.model import Graph, Model, Tensor, Variable, tensor_shape
from wootz.passes.ir.rewrite import erase_dead_nodes, redirect_readers
from wootz.passes.plan.lesson import Lesson
from wootz.passes.training.decoding import Decoding, Undecoded
from wootz.passes.training.expression import Expression
from wootz.passes.training.losses import (
    bernoulli_distillation,
    distillation,
    logits_of,
    normalized_squared_error,
    scaled_squared_error,
    without_activation,
)
from wootz.passes.training.state import NEW_SUFFIX
from wootz.passes.training.trainable_part import TrainablePart
from wootz.passes.transforms.teacher_student import TEACHER, add_prefix, in_inference_mode

DISTILLATION = "distillation"
"""The output with the loss."""
ONLY_DISTILLATION = 1.0


@dataclass(frozen=True)
class Distill(Pass):
    """Puts the full network, which is not trained, beside a pruned one, and a loss that compares their outputs.

    1. The teacher is the network of `teacher` in inference mode: constants and BatchNormalization folded, Dropout left
       out, weights constant, without postprocessing (`trainable-part`). It reads the inputs of the network, by their
       names, and the names of everything else in it begin with `teacher/`.
    2. The output `distillation` is share · the mean of the losses of all outputs that both networks have. That of
       class scores, which come from a Softmax or LogSoftmax, is T² · KL(teacher ‖ network) at temperature T along the
       classes, of their logits (see `attach-loss`). With `scores` all outputs of several classes along axis 1 are
       class scores, with `scores-of` those of these names. That of other outputs is mean((y - y')²) / mean(y'²) over
       the batch: outputs of different size count alike.
    3. Outputs that are decoded behind the last layers, as boxes and probabilities of detectors are (`decoding`), are
       compared before that, where both networks have it in one shape: the loss of an output is the mean of those of
       what it is decoded from. That is T² · KL where only a Softmax reads it, and element by element where only a
       Sigmoid does, else mean((y - y')²) / √mean(y'²).
    4. `outputs` are those that are compared, all where none is named, and the mean of their losses is weighted by
       `weights`, one for each.
    5. With `features` above 0, features · the mean of such quotients over the exits of modules is added, those
       that have the same shape in both networks. Modules are those of either model's table, which is gone afterwards.
    6. With share 1 the outputs of the network are gone; otherwise `attach-loss{scale=1-share plus=distillation}` is
       to follow.
    7. With `given` the teacher isn't there: what the losses read of it are inputs, [batch, …], by the names that these
       tensors would have (`teacher/…`). `teacher_part` computes them.

    Refuses to have no teacher, one that has other inputs or no output in common, an output of another shape than the
    teacher's, weights that are not one for each of the outputs, features where no module's output has the teacher's
    shape, and `given` where the losses read something that has no batch in front.
    """

    name: ClassVar[str] = "distill"
    requires = "the full network: distill{teacher=FILE}"
    teacher: str = option("", "the file of the full network")
    share: float = option(ONLY_DISTILLATION, "factor of the loss of the outputs")
    temperature: float = option(1.0, "divides the logits of both networks")
    features: float = option(0.0, "factor of the loss of what modules give")
    scores: bool = option(False, "whether outputs are class scores that don't end in a Softmax")
    scores_of: tuple[str, ...] = option((), "the names of outputs that are such class scores")
    decoded: bool = option(False, "whether all outputs are compared as they are (without 3)")
    outputs: tuple[str, ...] = option((), "the outputs that are compared; by default all")
    weights: tuple[float, ...] = option((), "how much each of these outputs counts; by default alike")
    given: bool = option(False, "whether what the losses read of the full network are inputs, and it isn't there")
    network: Model | None = None
    """The full network, where it is there already."""

    @classmethod
    def of(cls, lesson: Lesson, network: Model) -> Distill:
        """Whose teacher is `network`."""
        return cls(
            share=lesson.distill,
            temperature=lesson.temperature,
            features=lesson.features,
            scores=lesson.has_scores,
            scores_of=lesson.outputs_of_scores,
            outputs=tuple(name for name, weight in lesson.output_weights if weight),
            weights=tuple(weight for _, weight in lesson.output_weights if weight),
            network=network,
        )

    def apply(self, model: Model) -> PassResult:
        pair, losses = self._compared(model)
        if self.given:
            pair.leave_teacher_out()
        return PassResult(replace(pair.model, modules=()), True, losses)

    def teacher_part(self, model: Model) -> Model:
        """What computes the inputs that `given` leaves of the teacher of `model`: it has the inputs of `model`, and
        these as outputs. Raises PassError as the pass does."""
        return self._compared(model)[0].teacher_part()

    def _compared(self, model: Model) -> tuple[_Pair, dict[str, int]]:
        """Both networks with their loss as an output, and how many losses of each kind that has."""
        self._check_options()
        student = model.copy()
        annotate_symbolic_shapes(student.graph)
        pair = _Pair(student, self._teacher(), self)
        outputs = [*pair.output_losses()] if self.share else []
        features = [*pair.feature_losses()] if self.features else []
        terms = [_mean(outputs, self.weights) * self.share] if outputs else []
        terms += [_mean(features) * self.features] if features else []
        total = _sum(terms)
        loss = total.op("Identity").tensor
        loss.name, loss.dtype, loss.shape = DISTILLATION, total.dtype, ()
        kept = [] if self.share == ONLY_DISTILLATION else student.graph.outputs
        student.graph.outputs = [*kept, loss]
        erase_dead_nodes(student.graph)
        return pair, {"outputs": len(outputs), "features": len(features)}

    def _check_options(self) -> None:
        if not 0 <= self.share <= 1:
            raise self.refuse(f"share has to be at least 0 and at most 1, not {self.share}")
        if not 0 < self.temperature < math.inf:
            raise self.refuse(f"temperature has to be more than 0, not {self.temperature}")
        if not 0 <= self.features < math.inf:
            raise self.refuse(f"features has to be at least 0, not {self.features}")
        if self.weights and (
            len(self.weights) != len(self.outputs) or not 0 < min(self.weights) <= max(self.weights) < math.inf
        ):
            raise self.refuse("weights are one for each of the outputs, and more than 0")
        if not self.share and not self.features:
            raise self.refuse("share and features are 0: there is nothing to learn from the teacher")

    def _teacher(self) -> Model:
        """The full network in inference mode, with the names that its tensors have in the file."""
        if self.network is None and not self.teacher:
            raise self.refuse("no teacher: option teacher takes the file of the full network")
        network = self.network or load(self.teacher)
        try:
            teacher = in_inference_mode(TrainablePart().apply(network).model)
        except WootzError as error:
            raise self.refuse(f"the full network: {error}") from error
        annotate_symbolic_shapes(teacher)
        return replace(network, graph=teacher)


class _Pair:
    """A network and its teacher, in the network's graph."""

    def __init__(self, student: Model, teacher: Model, options: Distill):
        self.model, self._graph, self._options = student, student.graph, options
        self._modules = student.modules or teacher.modules
        self._before = student.graph.tensors()
        self._teacher = teacher.graph.tensors()
        self._outputs = [(t, self._teacher[t.name]) for t in self._compared(teacher.graph)]
        decoding = None if options.decoded else Decoding(teacher.graph)
        self._sources = {
            output.name: [*self._pairs(decoding.sources(target))] if decoding else []
            for output, target in self._outputs
        }
        self._first_input, self._teacher_nodes = teacher.graph.inputs[0], tuple(teacher.graph.nodes)
        self._put_beside(teacher.graph)
        self._builder = Builder(self._graph, f"{DISTILLATION}/")

    def leave_teacher_out(self) -> None:
        """What is read of the teacher become inputs."""
        for tensor in self._read_of_teacher():
            given = Variable(tensor.name, tensor.dtype, self._shape_of_batch(tensor))
            redirect_readers(tensor, given)
            self._graph.inputs.append(given)
        erase_dead_nodes(self._graph)

    def teacher_part(self) -> Model:
        """What computes these inputs, of the network's own."""
        graph = self._graph
        graph.outputs = self._read_of_teacher()
        for tensor in graph.outputs:
            tensor.shape = self._shape_of_batch(tensor)
        erase_dead_nodes(graph)
        return Model(graph)

    def _read_of_teacher(self) -> list[Tensor]:
        """What others than the teacher's nodes read of what these compute, in their order."""
        own = {id(node) for node in self._teacher_nodes}
        computed = [t for node in self._teacher_nodes for t in node.outputs]
        return [t for t in computed if any(id(reader) not in own for reader in t.outputs)]

    def _shape_of_batch(self, tensor: Tensor) -> list[int | str]:
        """The shape as the network has it, that calls the batch as it likes. Refuses one that has no batch in front."""
        batch, *_ = tensor_shape(self._first_input) or (None,)
        own = next(t for t in self._graph.inputs if t.name == self._first_input.name)
        shape = tensor_shape(tensor)
        if not shape or batch is None or shape[0] != batch:
            raise self._options.refuse(f"given: it has no batch in front, its shape is {shape}", tensor.name)
        return [own.shape[0], *shape[1:]]

    def output_losses(self) -> Iterator[Expression]:
        for output, target in self._outputs:
            axis = self._class_axis(output.name, target)
            if axis is not None:
                yield self._divergence(self._logits(output), self._logits(target), axis)
            elif sources := self._sources[output.name]:
                yield _mean([self._loss_before_decoding(own, source) for own, source in sources])
            else:
                self._check_shapes(output, target)
                yield normalized_squared_error(self._expression(output), self._expression(target))

    def _divergence(self, student: Tensor, teacher: Tensor, axis: int) -> Expression:
        self._check_shapes(student, teacher)
        logits = self._expression(student), self._expression(teacher)
        return distillation(*logits, temperature=self._options.temperature, axis=axis)

    def _loss_before_decoding(self, own: Tensor, source: Undecoded) -> Expression:
        if source.activation is None:
            return scaled_squared_error(self._expression(own), self._expression(source.tensor))
        if source.activation.op != "Sigmoid":
            return self._divergence(own, source.tensor, softmax_axis(source.activation))
        logits = self._expression(own), self._expression(source.tensor)
        return bernoulli_distillation(*logits, temperature=self._options.temperature)

    def _pairs(self, sources: tuple[Undecoded, ...]) -> Iterator[tuple[Tensor, Undecoded]]:
        """What an output is decoded from, and the network's own beside it: all of it, or none where it lacks one."""
        if all(self._is_whole(source.tensor.name) for source in sources):
            yield from ((self._before[source.tensor.name], source) for source in sources)

    def feature_losses(self) -> Iterator[Expression]:
        exits = dict.fromkeys(name for module in self._modules for name in module.exits)
        found = [name for name in exits if self._is_whole(name)]
        if not found:
            raise self._options.refuse(
                "features: no module's output has the shape that it has in the full network"
                if self._modules
                else "features: neither network has a table of modules: run annotate-modules on the full one"
            )
        for name in found:
            output, target = self._before[name], self._teacher[name]
            yield normalized_squared_error(self._expression(output), self._expression(target))

    def _compared(self, teacher: Graph) -> list[Tensor]:
        """The outputs of the network that the teacher has, too."""
        targets = {t.name for t in teacher.outputs}
        outputs = [t for t in self._graph.outputs if not t.name.endswith(NEW_SUFFIX)]
        common = {t.name: t for t in outputs if t.name in targets}
        if not common:
            have, want = (", ".join(names) or "none" for names in ([t.name for t in outputs], sorted(targets)))
            raise self._options.refuse(f"no output in common: the network has {have}, the full network {want}")
        if unknown := [name for name in self._options.outputs if name not in common]:
            raise self._options.refuse(f"no output {unknown[0]} in both networks: there are {', '.join(common)}")
        return [common[name] for name in self._options.outputs or common]

    def _put_beside(self, teacher: Graph) -> None:
        """The teacher's nodes stand before the network's, and read its inputs."""
        if taken := [name for name in self._before if name.startswith(TEACHER)]:
            raise self._options.refuse(f"there is a tensor whose name begins with {TEACHER} already", taken[0])
        given = {t.name: t for t in self._graph.inputs}
        for tensor in teacher.inputs:
            own = given.get(tensor.name)
            if own is None:
                raise self._options.refuse(
                    f"the full network reads an input that the network doesn't have: {tensor.name}"
                )
            self._check_shapes(own, tensor)
            redirect_readers(tensor, own)
        add_prefix(teacher, TEACHER, keep=set(given))
        self._graph.nodes = [*teacher.nodes, *self._graph.nodes]

    def _class_axis(self, name: str, target: Tensor) -> int | None:
        """The axis of the classes of a teacher's output; None where it doesn't give class scores."""
        last = last_activation(target)
        if last is not None and last.node.op != "Sigmoid":
            return axis_behind(softmax_axis(last.node), last.behind)
        shape = tensor_shape(target)
        are_scores = self._options.scores or name in self._options.scores_of
        return 1 if are_scores and shape is not None and len(shape) > 1 and shape[1] != 1 else None

    def _logits(self, output: Tensor) -> Tensor:
        last = last_activation(output)
        if last is not None and last.node.op != "Sigmoid":
            return without_activation(last, self._builder)
        return logits_of(output, self._builder, self._options)

    def _is_whole(self, name: str) -> bool:
        output, target = self._before.get(name), self._teacher.get(name)
        return output is not None and target is not None and output.shape is not None and _are_alike(output, target)

    def _check_shapes(self, output: Tensor, target: Tensor) -> None:
        if not _are_alike(output, target):
            shapes = f"{tensor_shape(output)}, in the full network {tensor_shape(target)}"
            raise self._options.refuse(f"it has shape {shapes}", output.name)

    def _expression(self, tensor: Tensor) -> Expression:
        return Expression.of(tensor, self._builder)


def _are_alike(output: Tensor, target: Tensor) -> bool:
    """Whether two tensors have the same extents, as far as these are known."""
    own, other = tensor_shape(output), tensor_shape(target)
    if own is None or other is None:
        return True
    known = ((a, b) for a, b in zip(own, other, strict=False) if isinstance(a, int) and isinstance(b, int))
    return len(own) == len(other) and all(a == b for a, b in known)


def _mean(losses: Sequence[Expression], weights: Sequence[float] = ()) -> Expression:
    if not weights:
        return _sum(losses) * (1 / len(losses))
    return _sum([loss * (weight / sum(weights)) for loss, weight in zip(losses, weights, strict=True)])


def _sum(terms: Sequence[Expression]) -> Expression:
    return sum(terms[1:], terms[0])
