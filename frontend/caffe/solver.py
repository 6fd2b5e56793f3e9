"""Reads and writes Caffe's solver prototxt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import cast, get_args

from wootz.frontend.caffe.prototxt import Message, read_prototxt
from wootz.frontend.caffe.schema import NoEffect, Unsigned, decode
from wootz.passes.errors import reading
from wootz.passes.ir.files import write_atomically
from wootz.passes.plan.solver import LearningRatePolicy, Solver, SolverType


class Regularization(Enum):
    L1 = "L1"
    L2 = "L2"


class SolverMode(Enum):
    CPU = 0
    GPU = 1


class LegacyType(Enum):
    """The enumerators of `solver_type`, which `type` replaced."""

    SGD = 0
    NESTEROV = 1
    ADAGRAD = 2
    RMSPROP = 3
    ADADELTA = 4
    ADAM = 5


@dataclass(frozen=True)
class _SolverFields:
    """SolverParameter of caffe.proto and of Intel's fork; the last three are ours. What is None was not given."""

    base_lr: float
    lr_policy: str
    type: str | None = None
    solver_type: LegacyType | None = None
    gamma: float | None = None
    power: float | None = None
    stepsize: Unsigned | None = None
    stepvalue: tuple[Unsigned, ...] = ()
    max_iter: Unsigned | None = None
    momentum: float | None = None
    momentum2: float | None = None
    rms_decay: float | None = None
    delta: float | None = None
    weight_decay: float | None = None
    regularization_type: Regularization | None = None
    iter_size: Unsigned | None = None
    clip_gradients: float | None = None
    snapshot: Unsigned | None = None
    snapshot_prefix: str | None = None
    test_iter: tuple[Unsigned, ...] = ()
    test_interval: Unsigned | None = None
    random_seed: int | None = None
    average_loss: Unsigned | None = None
    display: Unsigned | None = None
    solver_mode: SolverMode | None = None
    net: NoEffect | None = None
    train_net: NoEffect | None = None
    test_net: NoEffect | None = None
    device_id: NoEffect | None = None
    debug_info: NoEffect | None = None
    snapshot_diff: NoEffect | None = None
    snapshot_format: NoEffect | None = None
    snapshot_after_train: NoEffect | None = None
    test_initialization: NoEffect | None = None
    test_compute_loss: NoEffect | None = None
    layer_wise_reduce: NoEffect | None = None
    train_state: NoEffect | None = None
    test_state: NoEffect | None = None
    eval_type: NoEffect | None = None
    ap_version: NoEffect | None = None
    show_per_class_result: NoEffect | None = None
    test_offset: NoEffect | None = None
    engine: NoEffect | None = None
    store_blobs_in_old_format: NoEffect | None = None
    warmup_iter: Unsigned | None = None
    warmup_start_lr: float | None = None
    batch_size: Unsigned | None = None
    data: str | None = None
    machines: Unsigned | None = None


NO_EFFECT = {
    "net": "the network is the MODEL of the command line",
    "train_net": "the network is the MODEL of the command line",
    "test_net": "the network is the MODEL of the command line",
    "device_id": "ONNX Runtime's provider chooses the device",
    "debug_info": "there is no such log",
    "snapshot_diff": "gradients are not stored",
    "snapshot_format": "snapshots are the run directory's own",
    "snapshot_after_train": "the last state is always stored",
    "test_initialization": "networks are always tested before they are trained",
    "test_compute_loss": "tests measure the accuracy",
    "layer_wise_reduce": "machines train different networks",
    "train_state": "levels and stages of layers are chosen where a network is imported (--level, --stage)",
    "test_state": "levels and stages of layers are chosen where a network is imported (--level, --stage)",
    "eval_type": "tests measure the accuracy",
    "ap_version": "tests measure the accuracy",
    "show_per_class_result": "tests measure the accuracy",
    "test_offset": "tests are made at multiples of test_interval",
    "engine": "ONNX Runtime chooses how it computes",
    "store_blobs_in_old_format": "snapshots are the run directory's own",
}
"""Fields of Caffe that are read and do nothing here, each with the reason; `solver_notes` reports those of a file."""

_REFUSED = {
    "net_param": "the network is the MODEL of the command line: put it in a file of its own",
    "train_net_param": "the network is the MODEL of the command line: put it in a file of its own",
    "test_net_param": "the network is the MODEL of the command line: put it in a file of its own",
    "weights": "the weights are given on the command line: --weights",
}

_ALWAYS_WRITTEN = ("type", "base_lr", "lr_policy", "max_iter", "batch_size")
_ENUMERATORS = ("regularization_type", "solver_mode")
"""Fields whose values are written without quotes, though they are words."""

_POLICY_NEEDS: dict[str, tuple[str, ...]] = {
    "step": ("gamma", "stepsize"),
    "multistep": ("gamma", "stepvalue"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
    "cosine": ("max_iter",),
}


def read_solver(path: Path) -> Solver:
    """The solver in a file. Raises InputError for a field that is unknown, missing or contradicts another."""
    with reading(path, "a solver"):
        return parse_solver(read_prototxt(path))


def write_solver(path: Path, solver: Solver, comment: str = "") -> None:
    """Writes what `read_solver` reads back as `solver`; `comment` becomes the first line."""
    write_atomically(path, print_solver(solver, comment).encode())


def print_solver(solver: Solver, comment: str = "") -> str:
    """The fields of `solver` that aren't defaults, that its policy needs, and that say what it is about, one a line."""
    defaults, always = Solver(), {*_ALWAYS_WRITTEN, *_POLICY_NEEDS.get(solver.lr_policy, ())}
    shown = {
        f.name: value
        for f in fields(Solver)
        if (value := getattr(solver, f.name)) != getattr(defaults, f.name) or f.name in always
    }
    lines = [f"# {comment}"] if comment else []
    for name, value in shown.items():
        lines += [f"{name}: {_written(name, v)}" for v in (value if isinstance(value, tuple) else (value,))]
    return "\n".join(lines) + "\n"


def solver_notes(path: Path) -> tuple[str, ...]:
    """One line for each field of the file that has no effect here."""
    message = read_prototxt(path)
    return tuple(
        f"{path}:{message.source.position(f.offset)[0]}: {f.name} has no effect: {NO_EFFECT[f.name]}"
        for f in message.fields
        if f.name in NO_EFFECT
    )


def parse_solver(message: Message) -> Solver:
    """The solver that a message describes; errors as of `read_solver`."""
    for field in message.fields:
        if field.name in _REFUSED:
            raise message.source.error(f"{field.name} is not read: {_REFUSED[field.name]}", field.offset)
    p = decode(message, _SolverFields, "solver")
    if p.warmup_start_lr is not None and not p.warmup_iter:
        raise message.error("warmup_start_lr needs warmup_iter", "warmup_start_lr")
    solver_type = _solver_type(message, p)
    given = {
        f.name: value
        for f in fields(Solver)
        if (value := getattr(p, f.name)) not in (None, ()) and f.name not in ("type", "test_iter")
    }
    for name in _ENUMERATORS:
        if name in given:
            given[name] = given[name].name
    given["lr_policy"] = _policy(message, p)
    solver = Solver(**{**given, "type": solver_type, "test_iter": _test_iter(message, p)})
    for name, reason in solver.faults():
        raise message.error(reason, name)
    if p.max_iter is None:
        raise message.error("max_iter is missing: Caffe would train for 0 steps; say how many it shall be")
    return solver


def _written(name: str, value: object) -> str:
    if isinstance(value, SolverType):
        value = value.value
    if not isinstance(value, str) or name in _ENUMERATORS:
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _solver_type(message: Message, p: _SolverFields) -> SolverType:
    if p.solver_type is not None:
        if p.type is not None:
            raise message.error("type and solver_type exclude each other: remove solver_type", "solver_type")
        return SolverType[p.solver_type.name]
    for known in SolverType:
        if p.type in (None, known.value):
            return SolverType.SGD if p.type is None else known
    names = ", ".join(t.value for t in SolverType)
    raise message.error(f"no solver of type {p.type!r}: there are {names}", "type")


def _policy(message: Message, p: _SolverFields) -> LearningRatePolicy:
    policies = get_args(LearningRatePolicy)
    if p.lr_policy not in policies:
        raise message.error(f"no lr_policy {p.lr_policy!r}: there are {', '.join(policies)}", "lr_policy")
    for needed in _POLICY_NEEDS.get(p.lr_policy, ()):
        if getattr(p, needed) in (None, (), 0) and not (needed == "gamma" and p.gamma == 0):
            raise message.error(f"lr_policy {p.lr_policy!r} needs {needed}", "lr_policy")
    return cast(LearningRatePolicy, p.lr_policy)


def _test_iter(message: Message, p: _SolverFields) -> int:
    if len(p.test_iter) > 1:
        raise message.error("several test_iter: there is one validation split, so keep one", "test_iter")
    return int(p.test_iter[0]) if p.test_iter else 0
