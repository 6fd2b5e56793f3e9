"""What a run found, as it stands in `result.json`: docs/result.md says what each field is.

The types are the file: msgspec reads and writes them, and checks what it reads. `SCHEMA` counts up whenever a field is
renamed, removed or means something else; more fields are no new schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from wootz.passes.errors import InputError, reading
from wootz.passes.plan.blocks import Symbol, TuningBlock
from wootz.passes.plan.metrics import METRICS, Format, Metric
from wootz.passes.plan.objective import Measurements, Objective
from wootz.passes.plan.subspace import Configuration, Rate
from wootz.passes.plan.transform import Layout, Resize, Units
from wootz.runtime.run_directory import RESULT_FILE
from wootz.runtime.store.durable import write_durably

SCHEMA = 2

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Curve = tuple[tuple[Count, float], ...]
"""Steps done, and the quality on the validation split after them; from 0 to the last step."""

End = Literal["all steps", "bound met", "given up"]
"""How a training ended: with the solver's last step, at a test that met the constraints, or with no hope to."""


class ConstraintResult(Struct, frozen=True, kw_only=True):
    """`metric comparison bound`; bound is `scale * full + offset`, None if the full network's value is unknown."""

    metric: str
    comparison: Literal["<", ">", "<=", ">="]
    scale: float
    offset: float
    bound: float | None


class ObjectiveResult(Struct, frozen=True, kw_only=True):
    """The objective as text, and what it says."""

    text: str
    direction: Literal["min", "max"]
    metric: str
    constraints: tuple[ConstraintResult, ...]


class QualityResult(Struct, frozen=True, kw_only=True):
    """The metric that all that is called `quality` is of, in which direction it is better, and how it is shown."""

    name: str
    higher_is_better: bool
    format: Format

    @staticmethod
    def of(metric: Metric) -> QualityResult:
        return QualityResult(name=metric.name, higher_is_better=metric.higher_is_better, format=metric.format)

    @property
    def metric(self) -> Metric:
        known = Metric(self.name, self.higher_is_better, needs_training=True, format=self.format)
        return METRICS.get(self.name, known)


class Network(Struct, frozen=True, kw_only=True):
    """What is known of a network before it is trained. `configuration` has one rate a module, or a list of rates."""

    configuration: Configuration
    model_size: Count
    flops: Count
    latency_ms: float | None = None


class _OfSubspace(Network, frozen=True, kw_only=True, tag_field="state"):
    """`index` is the configuration's position in the subspace."""

    index: Count


class TrainedNetworkResult(_OfSubspace, frozen=True, kw_only=True, tag="trained"):
    """A network that was trained.

    `blocks` says for each module which of the run's blocks its weights started from; None: the teacher's. `quality`
    is that of the whole validation split with the weights after `kept` steps, the best ones of `curve`; `seconds` are
    those of training, whenever that was.
    """

    quality: float
    initial_quality: float
    blocks: tuple[Count | None, ...]
    curve: Curve
    kept: Count
    steps: Count
    steps_saved: Count = 0
    ended: End = "all steps"
    seconds: Seconds
    reused: bool = False


class FailedNetworkResult(_OfSubspace, frozen=True, kw_only=True, tag="failed"):
    """A network without a usable training, and the reason: it can't be chosen, whatever the objective."""

    reason: str
    blocks: tuple[Count | None, ...]
    reused: bool = False


class UntriedNetworkResult(_OfSubspace, frozen=True, kw_only=True, tag="not tried"):
    """A network that the choice did not need."""


class InfeasibleNetworkResult(_OfSubspace, frozen=True, kw_only=True, tag="infeasible"):
    """A network that misses a constraint, `violates`, which is known before training."""

    violates: str


EvaluatedNetworkResult = TrainedNetworkResult | FailedNetworkResult
NetworkResult = EvaluatedNetworkResult | UntriedNetworkResult | InfeasibleNetworkResult


class BestNetwork(Network, frozen=True, kw_only=True):
    """The network chosen, `index` in the subspace; `model` is its file in the run directory, None for the baseline's,
    and `whole` the one with the given network's postprocessing, where that has some.

    The file has `file_bytes`. `test_quality` is None without a test split.
    """

    index: Count
    model: str | None
    whole: str | None = None
    file_bytes: Count | None = None
    quality: float
    test_quality: float | None


class TunedResult(Struct, frozen=True, kw_only=True):
    """The full network after the fine-tuning that the pruned ones get."""

    quality: float
    test_quality: float | None
    curve: Curve
    steps: Count
    seconds: Seconds
    reused: bool = False


class FullNetworkResult(Network, frozen=True, kw_only=True, tag_field="state", tag="trained"):
    """The unpruned network, in the file `model` of `file_bytes`. `origin` says where its weights come from.

    `new_layers` are those that its weights file lacked. Where it was trained here `seconds` were spent on it, in the
    `steps` of `curve`. `quality` is that of the teacher; `tuned` is the same network after the fine-tuning of the
    pruned ones, None where nobody asked for it or it failed. `full` in the objective means the one that `reference`
    names.
    """

    model: str
    file_bytes: Count | None = None
    quality: float
    test_quality: float | None
    origin: Literal["given", "fine-tuned", "trained from scratch"]
    new_layers: tuple[str, ...] = ()
    curve: Curve = ()
    steps: Count = 0
    seconds: Seconds = 0.0
    reused: bool = False
    tuned: TunedResult | None = None
    reference: Literal["given", "tuned"] = "given"

    @property
    def reference_quality(self) -> float:
        """What `full` in bounds on the quality means."""
        return self.tuned.quality if self.tuned is not None and self.reference == "tuned" else self.quality

    def measured(self, quality: Metric) -> Measurements:
        return {**measurements(self.model_size, self.flops, self.latency_ms), quality: self.reference_quality}


class FailedFullNetworkResult(Network, frozen=True, kw_only=True, tag_field="state", tag="failed"):
    """An unpruned network that could not be trained, and the reason: nothing was tried with it."""

    reason: str
    origin: Literal["fine-tuned", "trained from scratch"]
    new_layers: tuple[str, ...] = ()
    reused: bool = False


class BlockSymbol(Struct, frozen=True, kw_only=True):
    """A module pruned at a rate; `input_rates` as in `passes.plan.blocks.Symbol`."""

    module: str
    rate: Rate
    input_rates: tuple[Rate, ...] = ()


class _Block(Struct, frozen=True, kw_only=True, tag_field="state"):
    """A tuning block, and the number of networks to be tried that share it."""

    symbols: tuple[BlockSymbol, ...]
    networks: Count
    reused: bool = False


class TrainedBlockResult(_Block, frozen=True, kw_only=True, tag="trained"):
    """Errors are mean squared differences to the teacher's output, of the weights before pre-training and of those that
    were kept after it: the last ones, or the first where these are better."""

    initial_error: float
    final_error: float
    kept: Literal["last weights", "first weights"] = "last weights"
    steps: Count


class FailedBlockResult(_Block, frozen=True, kw_only=True, tag="failed"):
    """A block without a usable training: its modules start from the teacher's remaining weights."""

    reason: str


BlockResult = TrainedBlockResult | FailedBlockResult


class PhaseSeconds(Struct, frozen=True, kw_only=True):
    """Wall-clock time of each phase, and of all of the run: the phases follow each other, so that `total` is their sum.

    `plan` includes the checks before anything is trained, `delivery` ends where the result is written. Of a run that
    was continued it is the time of all attempts.
    """

    plan: Seconds = 0.0
    teacher: Seconds = 0.0
    pretraining: Seconds = 0.0
    scoring: Seconds = 0.0
    exploration: Seconds = 0.0
    baseline: Seconds = 0.0
    delivery: Seconds = 0.0
    total: Seconds


class Reuse(Struct, frozen=True, kw_only=True):
    """What was known before the run, and the seconds that its training once took."""

    teacher: bool = False
    blocks: Count = 0
    networks: Count = 0
    baseline_networks: Count = 0
    seconds_saved: Seconds = 0.0


SolverFields = Mapping[str, str | int | float | tuple[int, ...]]
"""What a solver says of training, by Caffe's names; fields that are left out have their default values."""


class Solvers(Struct, frozen=True, kw_only=True):
    """How was trained; `teacher` is None where the full network's weights were given."""

    teacher: SolverFields | None
    fine_tuning: SolverFields
    pretraining: SolverFields


class Environment(Struct, frozen=True, kw_only=True):
    """What computed it, by which `command`. `device` is "cpu" or "cuda"."""

    wootz: str
    python: str
    platform: str
    runtime: str
    executor: str
    workers: Count
    device: str
    precision: str
    target: str
    command: str = ""


class Exploration(Struct, frozen=True, kw_only=True):
    """The networks of the subspace in the order of trying, infeasible ones last, and the best; None: none will do.

    `seconds` is the time from the first network to the last.
    """

    best: BestNetwork | None
    networks: tuple[NetworkResult, ...]
    networks_evaluated: Count
    seconds: Seconds

    @property
    def evaluated(self) -> tuple[EvaluatedNetworkResult, ...]:
        return tuple(n for n in self.networks if isinstance(n, EvaluatedNetworkResult))

    @property
    def trained(self) -> tuple[TrainedNetworkResult, ...]:
        return tuple(n for n in self.networks if isinstance(n, TrainedNetworkResult))

    @property
    def failed(self) -> tuple[FailedNetworkResult, ...]:
        return tuple(n for n in self.networks if isinstance(n, FailedNetworkResult))


class Images(Struct, frozen=True, kw_only=True):
    """How many images there are of each kind: shares of them are as uncertain as they are few. `test` may be None."""

    train: Count
    validation: Count
    test: Count | None


class Value(Struct, frozen=True, kw_only=True):
    """An input or output: extents are numbers, or names of those that are open."""

    name: str
    type: str
    shape: tuple[int | str, ...]


class GivenInput(Value, frozen=True, kw_only=True):
    """An input, and whether it takes `pixels`, of which `ImageInput` says more, or `values` as the arrays have them."""

    takes: Literal["pixels", "values"]

    @property
    def shape_of_one(self) -> tuple[int, ...]:
        """The shape for one sample, or for as many as the network takes at once."""
        return tuple(n if isinstance(n, int) else 1 for n in self.shape)


class ImageInput(Value, frozen=True, kw_only=True):
    """The images: how large they were in training, and what of their pixels, 0 to 255, the network is fed; with other
    `units`, what of the numbers of the arrays that it was trained on.

    That is `(pixel - mean) * scale`, with one number or one a channel, which are in `channel_order`. How photographs
    get that size say `resize`, `resize_to` and `crop_size` (`passes.plan.transform.InputTransform`).
    """

    layout: Layout
    height: int
    width: int
    channel_order: Literal["RGB", "BGR", "grey"]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    resize: Resize
    resize_to: int
    crop_size: int
    units: Units = "0-255"

    @property
    def shape_of_one(self) -> tuple[int, ...]:
        """The shape of the input for one image, or for as many as the network takes at once."""
        sizes = {"N": 1, "H": self.height, "W": self.width}
        return tuple(n if isinstance(n, int) else sizes[axis] for axis, n in zip(self.layout, self.shape, strict=True))

    @property
    def is_normalised(self) -> bool:
        """Whether the network is fed anything but the pixels as they are."""
        return any(self.mean) or any(factor != 1 for factor in self.scale)


class LatencyResult(Struct, frozen=True, kw_only=True):
    """Milliseconds for one image: the median, and the quartiles below and above it."""

    low_ms: float
    median_ms: float
    high_ms: float


class Speed(Struct, frozen=True, kw_only=True):
    """The files of the full network and the best one, measured side by side on `threads` threads of the device."""

    full: LatencyResult
    best: LatencyResult
    threads: Count

    @property
    def factor(self) -> float:
        """How many times faster the best network is."""
        return self.full.median_ms / self.best.median_ms

    @property
    def is_clearly_faster(self) -> bool:
        """Whether three quarters of the best network's runs are faster than three quarters of the full one's."""
        return self.best.high_ms < self.full.low_ms


class Miss(Struct, frozen=True, kw_only=True):
    """A constraint of the objective, as text, that a network misses, and by how much, in the metric's own unit."""

    constraint: str
    by: float


class FinishingStep(Struct, frozen=True, kw_only=True):
    """The network behind a pass, as a file. Parameters and FLOPs are those of the best network."""

    pass_: str = msgspec.field(name="pass")
    bytes: Count
    quality: float
    test_quality: float | None
    latency: LatencyResult


class FinishedNetwork(Struct, frozen=True, kw_only=True):
    """What a pipeline made of the best network: the file `model`, measured as it was read back.

    The last of `steps` is the file itself. `float_nodes` are those with weights that int8 left in float32. It meets the
    objective where `misses` is empty.
    """

    pipeline: str
    model: str
    bytes: Count
    opset: Count
    quality: float
    test_quality: float | None
    latency: LatencyResult
    misses: tuple[Miss, ...]
    steps: tuple[FinishingStep, ...]
    float_nodes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Seconds = 0.0


class Finishing(Struct, frozen=True, kw_only=True):
    """What `--finish` made, timed side by side with `teacher.onnx` and `best.onnx`: the result's `speed`."""

    networks: tuple[FinishedNetwork, ...]


class BlockScore(Struct, frozen=True, kw_only=True):
    """The full network with one module pruned at a rate, its block trained; a rate of 1 leaves the module out.

    `divergence` is that of its outputs from the full network's, `error` that of the module's output, in variances.
    """

    module: str
    rate: float
    quality: float
    divergence: float
    error: float


class SearchedNetwork(Network, frozen=True, kw_only=True):
    """A network that a search has met: what was expected of it, and what it came to.

    `loss` is predicted from its blocks' divergences, where these were measured, `looked` the quality without any
    training, `predicted` that expected after fine-tuning, `quality` what it got there. `origin` says whose idea it was:
    the user's, who has `listed` it, the `solver`'s, or those beside which it is compared, `uniform` pruning and
    `random` configurations of the paper's rates.
    """

    origin: Literal["listed", "solver", "uniform", "random"]
    loss: float | None
    looked: float | None = None
    predicted: float | None = None
    quality: float | None = None


class FrontPoint(Network, frozen=True, kw_only=True):
    """A fine-tuned network that none is better than both in quality and in what it costs, in the file `model`."""

    index: Count
    model: str
    file_bytes: Count
    quality: float
    test_quality: float | None
    latency: LatencyResult | None = None


class SearchResult(Struct, frozen=True, kw_only=True):
    """What a search found beside the best network. `options` are the rates of each module; `space` networks
    are made of them, or listed.

    `cost` is the metric that the front trades quality for. `prediction_error` is that of the predicted qualities, by
    leaving one network out; None before two were trained. `is_complete` says that no other network was expected to be
    better than the best one, or to meet the objective where none does; `why_it_ended` is a sentence that says so, or
    what it was that ended the search before. Networks are chosen by the sum of their blocks' divergences to the power
    `exponent`, of which a predicted loss, in nats, is the root. `gap` is proven: no network within a budget has a sum
    that is smaller by more than this share than the one chosen for it. `latency_of_full` is that of the full network
    beside the front's files.
    """

    options: tuple[tuple[float, ...], ...]
    space: float
    cost: str
    scores: tuple[BlockScore, ...]
    networks: tuple[SearchedNetwork, ...]
    front: tuple[FrontPoint, ...] = ()
    latency_of_full: LatencyResult | None = None
    prediction_error: float | None = None
    is_complete: bool = True
    why_it_ended: str = ""
    gap: float = 0.0
    exponent: float = 1.0

    @property
    def is_listed(self) -> bool:
        """Whether it chose among networks that somebody had listed."""
        return any(network.origin == "listed" for network in self.networks)


class RunResult(Struct, frozen=True, kw_only=True):
    """Everything that the report shows; the fields up to `networks` are those of the block-trained exploration.

    `input_source` says who said how pixels become the `input`, or how it was found out, and `learned_from` what pruned
    networks have learned from.
    """

    schema: int = SCHEMA
    quality: QualityResult
    best: BestNetwork | None
    full: FullNetworkResult | FailedFullNetworkResult
    networks_evaluated: Count
    networks_feasible: Count
    networks_total: Count
    baseline: Exploration | None
    seconds: PhaseSeconds
    reuse: Reuse
    seed: int
    network: str
    data: str
    objective: ObjectiveResult
    classes: tuple[str, ...]
    images: Images | None = None
    input: ImageInput | None = None
    inputs: tuple[GivenInput, ...] = ()
    input_source: str = ""
    learned_from: str = ""
    solvers: Solvers | None = None
    speed: Speed | None = None
    finishing: Finishing | None = None
    search: SearchResult | None = None
    modules: tuple[str, ...]
    modules_source: str
    networks: tuple[NetworkResult, ...]
    blocks: tuple[BlockResult, ...]
    groups: tuple[tuple[Count, ...], ...]
    notes: tuple[str, ...] = ()
    environment: Environment

    def __post_init__(self) -> None:
        """Raises ValueError where parts don't fit each other."""
        for exploration in (self.block_trained, *filter(None, [self.baseline])):
            if exploration.networks_evaluated != len(exploration.evaluated):
                raise ValueError(f"networks_evaluated is {exploration.networks_evaluated}, not the number of networks")
            if exploration.best is not None and exploration.best.index not in {n.index for n in exploration.trained}:
                raise ValueError(f"the best network, {exploration.best.index}, is none that was trained")
            for network in exploration.networks:
                _check_length(network.configuration, self.modules)
            for evaluated in exploration.evaluated:
                _check_length(evaluated.blocks, self.modules)
                _check_positions((b for b in evaluated.blocks if b is not None), self.blocks)
        _check_positions((block for group in self.groups for block in group), self.blocks)
        unknown = {s.module for block in self.blocks for s in block.symbols} - set(self.modules)
        if unknown:
            raise ValueError(f"a block of {min(unknown)}, which is no module")

    @property
    def kind(self) -> Literal["block-trained", "default"]:
        """What its networks are: default ones where no block was trained that they could begin with."""
        return "block-trained" if self.blocks else "default"

    @property
    def block_trained(self) -> Exploration:
        return Exploration(
            best=self.best,
            networks=self.networks,
            networks_evaluated=self.networks_evaluated,
            seconds=self.seconds.exploration,
        )

    def save(self, folder: Path) -> None:
        """Writes `result.json`, all of it or nothing."""
        write_durably(folder / RESULT_FILE, [encode(self)])

    @staticmethod
    def load(folder: Path) -> RunResult:
        """Reads `result.json` of a run directory. Raises InputError when it is missing or not ours."""
        file = folder / RESULT_FILE
        if not folder.is_dir():
            raise InputError("there is no such folder", folder)
        if not file.is_file():
            raise InputError("no result.json in this folder: it is not the directory of a finished run", folder)
        return read_result(file)


class _Head(Struct):
    schema: int | None = None


def encode(result: RunResult) -> bytes:
    """The file's content: JSON, indented by one."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def read_result(file: Path) -> RunResult:
    """Raises InputError, with the file's name, for one that can't be read, or is damaged, or of another schema."""
    with reading(file, "the result of a run"):
        content = file.read_bytes()
        schema = msgspec.json.decode(content, type=_Head).schema
        if schema != SCHEMA:
            found = "no schema number" if schema is None else f"schema {schema}"
            raise InputError(f"not the result of a run that this version of wootz reads: {found}, not {SCHEMA}", file)
        return msgspec.json.decode(content, type=RunResult)


def measurements(model_size: int, flops: int, latency_ms: float | None) -> Measurements:
    """What is known of a network before its training."""
    values = {Metric.MODEL_SIZE: model_size, Metric.FLOPS: flops, Metric.LATENCY: latency_ms}
    return {metric: float(value) for metric, value in values.items() if value is not None}


def objective_result(objective: Objective, full: Measurements) -> ObjectiveResult:
    """The objective with its bounds as numbers, as far as the `full` network's values are known."""
    return ObjectiveResult(
        text=str(objective),
        direction=objective.direction,
        metric=objective.metric.name,
        constraints=tuple(
            ConstraintResult(
                metric=c.metric.name,
                comparison=c.comparison,
                scale=c.scale,
                offset=c.offset,
                bound=c.bound(full) if not c.scale or c.metric in full else None,
            )
            for c in objective.constraints
        ),
    )


def block_symbols(block: TuningBlock, modules: Sequence[str]) -> tuple[BlockSymbol, ...]:
    """The symbols of a block with the names of their modules."""
    return tuple(BlockSymbol(module=modules[s.module], rate=s.rate, input_rates=s.input_rates) for s in block.symbols)


def block_text(symbols: Iterable[BlockSymbol], modules: Sequence[str]) -> str:
    """`3(0.5) 4(0.3)`: the third module and the fourth, with their rates."""
    return str(TuningBlock(tuple(Symbol(modules.index(s.module), s.rate, s.input_rates) for s in symbols)))


def _check_length(values: Sequence[object], modules: Sequence[str]) -> None:
    if len(values) != len(modules):
        raise ValueError(f"{len(values)} values where there are {len(modules)} modules")


def _check_positions(positions: Iterable[int], of: Sequence[object]) -> None:
    for position in positions:
        if position >= len(of):
            raise ValueError(f"block {position} of {len(of)}")
