"""`apply-optimizer`: from gradients to new parameters, as nodes of the graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from wootz.passes.base import Pass, PassResult, option
from wootz.passes.ir.builder import Builder
from wootz.passes.ir.model import TRAINING_KEY, Constant, Graph, Model, Tensor, Variable, subgraph_nodes
from wootz.passes.ir.rewrite import erase_dead_nodes
from wootz.passes.ir.shapes import annotate_shapes
from wootz.passes.plan.solver import Solver, SolverType
from wootz.passes.training.attach_loss import TARGET
from wootz.passes.training.expression import Expression
from wootz.passes.training.interface import Slot, TrainingInterface
from wootz.passes.training.loss_scaling import LossScale, all_finite
from wootz.passes.training.optimizers import OPTIMIZERS, Optimizer, Step
from wootz.passes.training.state import GRADIENT_SUFFIX, NEW_SUFFIX, loss_outputs, multipliers
from wootz.passes.transforms.teacher_student import TEACHER

ITERATION = "optimizer.iteration"
LEARNING_RATE = "learning_rate"


def own_rate(loss: str) -> tuple[str, str]:
    """The names of the state that `own-rates` adds for a loss: its factor of the learning rate, and how that fades."""
    return f"{loss}.rate", f"{loss}.fade"


@dataclass(frozen=True)
class ApplyOptimizer(Pass):
    """Turns the gradients `<parameter>.grad` into new parameters `<parameter>.new`, by the formulas of Caffe.

    The order is Caffe's (sgd_solver.cpp, ApplyUpdate): clip, divide by iter-size, add the weight decay, update.

    1. Parameters, running statistics and the optimizer's state become graph inputs with an initializer of the same
       name; their values after the step are outputs. `learning_rate` is a new scalar input.
    2. `clip-gradients` bounds the ℓ2 norm of all gradients of one loss; each loss is clipped on its own.
    3. With `iter-size` n, n runs make one step: the gradients are summed in `<parameter>.accumulated`, and every nth
       run uses their mean. Losses and running statistics are those of each run.
    4. Learning rate and weight decay are multiplied by the parameter's lr_mult and decay_mult (`wootz.multipliers`).
       AdamW decays the parameter itself, w - rate · decay · w, instead of adding decay · w to the gradient.
    5. With `loss-scale` above 0, the loss is multiplied by it before its gradients are computed, and these are divided
       by it before anything else; the loss that the graph gives is not scaled. A step with a gradient that is not
       finite leaves parameters, statistics, the optimizer's state and its count of steps as they were, and halves the
       scale; `loss-scale-interval` steps without one double it. Each loss has a scale of its own, `<loss>.scale`.
    6. With `own-rates` each loss has a factor of the learning rate of its own, `<loss>.rate`, 1 at first, that falls by
       `<loss>.fade` in each run, 0 at first, down to 0.
    7. The graph's interface is stored in the metadata (`wootz.training`). Inputs whose names begin with `teacher/` are
       those that `distill{given=true}` has made.

    Refuses a graph without gradients, parameters of float16, and settings that mean nothing. Outputs that are neither
    loss nor state are dropped.
    """

    name: ClassVar[str] = "apply-optimizer"
    requires = "a loss and its gradients: attach-loss and build-gradients run before"
    type: Literal["SGD", "Nesterov", "Adam", "AdamW", "RMSProp", "AdaGrad", "AdaDelta"] = option(
        "SGD", "SGD, Nesterov, Adam, AdamW, RMSProp, AdaGrad or AdaDelta"
    )
    momentum: float = option(0.0, "momentum; β₁ of Adam, decay of AdaDelta")
    momentum2: float = option(0.999, "β₂ of Adam")
    rms_decay: float = option(0.99, "decay of RMSProp")
    delta: float = option(1e-8, "what keeps a denominator from being zero")
    weight_decay: float = option(0.0, "factor of the regularisation")
    regularization_type: Literal["L1", "L2"] = option("L2", "L2 adds decay · w to the gradient, L1 decay · sign(w)")
    iter_size: int = option(1, "runs that make one step")
    clip_gradients: float = option(-1.0, "bound on the ℓ2 norm of the gradients of a loss; negative: none")
    loss_scale: float = option(0.0, "first factor of the losses, for float16 gradients; 0: none")
    loss_scale_interval: int = option(2000, "steps with finite gradients after which the factor is doubled")
    own_rates: bool = option(False, "each loss has a learning rate of its own, which can be made to fade")
    losses: tuple[str, ...] = option((), "the losses; by default every scalar output")
    data: tuple[str, ...] = option((), "names of the inputs with data, of a network that has several")
    labels: tuple[str, ...] = option(
        ("labels", TARGET), "names of the inputs with labels or targets, one a loss that has some"
    )

    @staticmethod
    def settings(solver: Solver) -> dict[str, Any]:
        """The options that are settings of a solver."""
        shared = {f.name for f in ApplyOptimizer.options()} & {f.name for f in dataclasses.fields(Solver)}
        return {name: getattr(solver, name) for name in shared} | {"type": solver.type.value}

    def solver(self) -> Solver:
        """The settings as a Solver."""
        shared = {f.name for f in self.options()} & {f.name for f in dataclasses.fields(Solver)}
        settings = {name: getattr(self, name) for name in shared - {"type"}}
        return Solver(type=SolverType(self.type), **settings)

    def apply(self, model: Model) -> PassResult:
        if self.type not in OPTIMIZERS:
            raise self.refuse(f"no optimizer {self.type!r}: one of {', '.join(OPTIMIZERS)}")
        for _, reason in self.solver().faults():
            raise self.refuse(reason.replace("_", "-"))
        if not 0 <= self.loss_scale < math.inf or self.loss_scale_interval < 1:
            raise self.refuse("loss-scale must not be negative, and loss-scale-interval at least 1")
        result = model.copy()
        graph = result.graph
        annotate_shapes(graph)
        losses = loss_outputs(graph, self.losses, self)
        step = _GraphStep(graph, self, multipliers(model))
        slots = [*step.update_parameters(losses), *step.keep_statistics(losses)]
        graph.outputs = [*losses, *step.outputs]
        erase_dead_nodes(graph)
        data, targets, teacher = self._sorted_inputs(model)
        interface = TrainingInterface(
            data=data[0],
            labels=targets[0] if targets else None,
            learning_rate=LEARNING_RATE,
            losses=tuple(loss.name for loss in losses),
            slots=tuple(slots),
            targets=targets[1:],
            more_data=data[1:],
            teacher=teacher,
        )
        metadata = {**model.metadata, TRAINING_KEY: interface.to_json()}
        return PassResult(replace(result, metadata=metadata), True, {"slots": len(slots)})

    def _sorted_inputs(self, model: Model) -> tuple[tuple[str, ...], ...]:
        """The inputs for the data, in the graph's order, those for labels or targets, in that of the option, and those
        that `distill` has made for what the teacher gives."""
        names = [t.name for t in model.graph.inputs]
        targets = tuple(n for n in dict.fromkeys(self.labels) if n in names)
        teacher = tuple(n for n in names if n.startswith(TEACHER) and n not in (*targets, *self.data))
        data = tuple(n for n in names if n not in (*targets, *teacher))
        unnamed = [n for n in data if n not in self.data]
        if not data or (unnamed and len(data) > 1):
            raise self.refuse(
                f"a training graph has one input beside its labels and targets, this one has: "
                f"{', '.join(data) or 'none'}; labels=NAME,NAME names all inputs with labels or targets, and "
                f"data=NAME,NAME those of a network of several inputs"
            )
        return data, targets, teacher


class _GraphStep:
    """Appends the step to a graph; `outputs` collects the new values of all state."""

    def __init__(self, graph: Graph, options: ApplyOptimizer, mult: Mapping[str, tuple[float, float]]):
        self.graph, self.options, self.multipliers = graph, options, mult
        self.solver = options.solver()
        self.optimizer: Optimizer = OPTIMIZERS[options.type]
        self.builder = Builder(graph, prefix="optimizer/")
        self.outputs: list[Tensor] = []
        self._tensors = graph.tensors()
        self._finite: dict[str, Expression] = {}

    def update_parameters(self, losses: list[Tensor]) -> Iterable[Slot]:
        gradients = self._gradients()
        rate = Variable(LEARNING_RATE, np.float32, ())
        if LEARNING_RATE in self._tensors:
            raise self.options.refuse(f"there is already a tensor named {LEARNING_RATE}")
        self.graph.inputs.append(rate)
        self.rate = Expression.of(rate, self.builder)
        slots = list(self._count_runs())
        for loss, parameters in self._by_loss(losses, gradients).items():
            slots += self._update_group(loss, {p: gradients[p] for p in parameters})
            self._move_to_the_end(self._tensors[loss])
        return slots

    def _move_to_the_end(self, loss: Tensor) -> None:
        """Runtimes order the nodes that nothing reads by their places: a loss belongs to its updates, lest its operands
        stay in memory until all other students have been trained."""
        node = loss.inputs[0]
        if not any(t.outputs for t in node.outputs):
            self.graph.nodes.append(self.graph.nodes.pop(next(i for i, n in enumerate(self.graph.nodes) if n is node)))

    def keep_statistics(self, losses: list[Tensor]) -> Iterable[Slot]:
        """The running statistics that a loss depends on; the others are of a part that is not trained."""
        news = {t.name.removesuffix(NEW_SUFFIX): t for t in self.graph.outputs if t.name.endswith(NEW_SUFFIX)}
        for loss, names in self._by_loss(losses, news).items():
            for name in names:
                old, new = self._expression(name), Expression.of(news[name], self.builder)
                self.graph.inputs.append(old.tensor)
                if loss in self._finite:
                    news[name].name = self.builder.fresh(news[name].name)
                    new = new.where(self._finite[loss], old)
                self._keep(new, name)
                yield Slot(name, name + NEW_SUFFIX, "statistic", loss)

    def _gradients(self) -> dict[str, Tensor]:
        gradients = {
            t.name.removesuffix(GRADIENT_SUFFIX): t for t in self.graph.outputs if t.name.endswith(GRADIENT_SUFFIX)
        }
        if not gradients:
            raise self.options.refuse("there are no gradients: run build-gradients first")
        for name in gradients:
            if self._tensors[name].dtype == np.float16:
                raise self.options.refuse(
                    "float16 is too narrow for a parameter that is trained (small steps and 1e-8 vanish): run "
                    "to-float32 first, and mixed-precision to compute in float16",
                    name,
                )
        return gradients

    def _by_loss(self, losses: list[Tensor], state: Iterable[str]) -> dict[str, list[str]]:
        """Which of `state` each loss depends on; what two losses share belongs to the first."""
        left = dict.fromkeys(state)
        found: dict[str, list[str]] = {}
        for loss in losses:
            nodes = subgraph_nodes([loss])
            mine = [name for name in left if any(id(n) in nodes for n in self._tensors[name].outputs)]
            found[loss.name] = mine
            for name in mine:
                del left[name]
        return found

    def _count_runs(self) -> Iterable[Slot]:
        """A counter where the optimizer or iter-size needs it; `self.number` is the number of the step, from 1."""
        self.number, self.is_step = self.rate, None
        counts_steps = self.optimizer.counts_steps and not self.options.loss_scale
        if not counts_steps and self.options.iter_size == 1:
            return
        count = self._state(ITERATION, np.zeros((), np.int64))
        now = count + 1
        self._keep(now, ITERATION)
        number = now / self.options.iter_size if self.options.iter_size > 1 else now
        self.number = number.cast(self.rate)
        if self.options.iter_size > 1:
            self.is_step = now.op("Mod", self.options.iter_size).equal(0)
        yield Slot(ITERATION, ITERATION + NEW_SUFFIX, "optimizer", "")

    def _update_group(self, loss: str, gradients: Mapping[str, Tensor]) -> Iterable[Slot]:
        """The step of all parameters that one loss trains."""
        slots: list[Slot] = []
        scale = self._loss_scale(loss) if self.options.loss_scale and gradients else None
        summed = {name: self._accumulate(name, g, scale, loss, slots) for name, g in gradients.items()}
        made, number = self.is_step, self.number
        if scale is not None:
            made, number = self._skip_unless_finite(loss, scale, list(summed.values()), slots)
        factor = self._clip_factor(list(summed.values()))
        rate = self._own_rate(loss, slots) if self.options.own_rates and gradients else self.rate
        for name, gradient in summed.items():
            w = self._expression(name)
            self.graph.inputs.append(w.tensor)
            slots.append(Slot(name, name + NEW_SUFFIX, "parameter", loss))
            g = gradient if factor is None else gradient * factor.cast(gradient)
            if self.options.iter_size > 1:
                g = g * (1.0 / self.options.iter_size)
            slots += self._update_parameter(name, w, g, rate, number, made, loss)
        return slots

    def _own_rate(self, loss: str, slots: list[Slot]) -> Expression:
        """The learning rate of one loss."""
        own, fade = (
            self._state(name, np.asarray(first, np.float32)) for name, first in zip(own_rate(loss), (1, 0), strict=True)
        )
        for state, value in ((own, (own - fade).op("Max", 0.0)), (fade, fade.op("Identity"))):
            self._keep(value, state.tensor.name)
            slots.append(Slot(state.tensor.name, state.tensor.name + NEW_SUFFIX, "optimizer", loss))
        return self.rate * own

    def _update_parameter(
        self,
        name: str,
        w: Expression,
        g: Expression,
        rate: Expression,
        number: Expression,
        made: Expression | None,
        loss: str,
    ) -> Iterable[Slot]:
        rate_multiplier, decay_multiplier = self.multipliers.get(name, (1.0, 1.0))
        rate = (rate if rate_multiplier == 1.0 else rate * rate_multiplier).cast(w)
        decay = self.options.weight_decay * decay_multiplier
        shrunk = w
        if decay and self.optimizer.decouples_decay:
            shrunk = w - w * (rate * decay)
        elif decay:
            g = g + (w if self.options.regularization_type == "L2" else w.op("Sign")) * decay
        names = [f"{name}.{s}" for s in self.optimizer.states]
        if self.options.type == "SGD" and not self.options.momentum:
            names = []
        states = [self._state(n, np.zeros_like(self._tensors[name].values)) for n in names]
        new, new_states = self.optimizer.update(Step(self.solver, shrunk, g, rate, states, number.cast(w)))
        self._keep(_if(made, new, w), name)
        for state_name, old, value in zip(names, states, new_states, strict=True):
            self._keep(_if(made, value, old), state_name)
            yield Slot(state_name, state_name + NEW_SUFFIX, "optimizer", loss)

    def _loss_scale(self, loss: str) -> LossScale:
        """The scale of `loss`, from which its gradients now begin."""
        scale_name, steps_name = LossScale.names(loss)
        scale = LossScale(
            self._state(scale_name, np.asarray(self.options.loss_scale, np.float32)),
            self._state(steps_name, np.zeros((), np.int64)),
            self.options.loss_scale_interval,
        )
        if not scale.multiply_loss(self.graph, loss):
            raise self.options.refuse("its gradients don't begin with a constant of build-gradients", loss)
        return scale

    def _skip_unless_finite(
        self, loss: str, scale: LossScale, gradients: list[Expression], slots: list[Slot]
    ) -> tuple[Expression, Expression]:
        """Whether this run makes a step for `loss`, and the number of that step; keeps the scale."""
        finite = self._finite[loss] = all_finite(gradients)
        made = finite if self.is_step is None else finite.op("And", self.is_step)
        for name, value in zip(LossScale.names(loss), scale.updated(finite, self.is_step), strict=True):
            self._keep(value, name)
            slots.append(Slot(name, name + NEW_SUFFIX, "optimizer", loss))
        if not self.optimizer.counts_steps:
            return made, self.number
        name = f"{loss}.steps"
        done = self._state(name, np.zeros((), np.int64))
        number = done + 1
        self._keep(number.where(made, done), name)
        slots.append(Slot(name, name + NEW_SUFFIX, "optimizer", loss))
        return made, number.cast(self.rate)

    def _accumulate(
        self, name: str, gradient: Tensor, scale: LossScale | None, loss: str, slots: list[Slot]
    ) -> Expression:
        """The sum of the gradients since the last step."""
        g = Expression.of(gradient, self.builder)
        if scale is not None:
            g = scale.divide(g)
        if self.is_step is None:
            return g
        state = f"{name}.accumulated"
        total = self._state(state, np.zeros_like(self._tensors[name].values)) + g
        self._keep(total.constant(0.0).where(self.is_step, total), state)
        slots.append(Slot(state, state + NEW_SUFFIX, "optimizer", loss))
        return total

    def _clip_factor(self, gradients: list[Expression]) -> Expression | None:
        """clip / norm where the norm is larger than clip, else 1."""
        clip = self.options.clip_gradients
        if clip < 0 or not gradients:
            return None
        squares = [(g * g).sum(keepdims=False) for g in gradients]
        total = squares[0]
        for square in squares[1:]:
            total = total + square
        return (clip / total.op("Sqrt").op("Max", clip)) if clip > 0 else total * 0.0

    def _expression(self, name: str) -> Expression:
        return Expression.of(self._tensors[name], self.builder)

    def _state(self, name: str, initial: np.ndarray) -> Expression:
        if name in self._tensors:
            raise self.options.refuse("the name of the optimizer's state is taken", name)
        tensor = Constant(name, initial)
        self.graph.inputs.append(tensor)
        return Expression.of(tensor, self.builder)

    def _keep(self, value: Expression, name: str) -> None:
        """Makes `value` the output `<name>.new`."""
        old = next(t for t in self.graph.inputs if t.name == name)
        tensor = value.tensor
        tensor.name, tensor.dtype, tensor.shape = name + NEW_SUFFIX, old.dtype, list(old.shape)
        self.outputs.append(tensor)


def _if(condition: Expression | None, new: Expression, old: Expression) -> Expression:
    """`new` in a run that makes a step, `old` in the others."""
    return new if condition is None else new.where(condition, old)
