"""All inputs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from wootz.passes.blocks.identifier import Method
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import OPSET, Model, tensor_shape
from wootz.passes.plan.lesson import LABELLED, Lesson
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.objective import Objective
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.space import Space
from wootz.passes.plan.subspace import Subspace
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.rounding import Rounding
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.transforms.image_classifier import is_classifier
from wootz.passes.transforms.set_interface import UNCHANGED, SetInterface
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.defaults import FAST_MULTIPLE, rounding
from wootz.runtime.delivery.finish_pipelines import Pipeline
from wootz.runtime.digest import digest
from wootz.runtime.latency_table.table import LatencyTable
from wootz.runtime.quality.quality import ACCURACY, Quality
from wootz.runtime.run_directory import check_name
from wootz.runtime.session import CPU, Device
from wootz.runtime.strategies.selection import check_quality_bounds, check_searchable
from wootz.runtime.tasks.recipe import Digests
from wootz.runtime.tasks.trainer import BlockStart

Reference = Literal["better", "given", "tuned"]


@dataclass(frozen=True)
class Searching:
    """What a search has beside a run: its space of these `rates`, of which at most so many `networks` are fine-tuned
    and `looks` looked at, and milliseconds of its pieces where these were measured elsewhere."""

    space: Space
    rates: tuple[float, ...]
    networks: int
    looks: int
    latency_table: LatencyTable | None = None


@dataclass(frozen=True)
class Job:
    """All inputs of a run.

    `untrained` are the layers whose weights came from fillers: when there are any, the full network is trained with
    `teacher_solver` before it serves as teacher; the pruned networks are fine-tuned with `solver`. `title` and
    `data_title` name the inputs in the report. `memory_budget` is in bytes, for the training of a group of blocks in
    one process; None sets no bound. Layers keep multiples of filters by `rounding`, which follows from `round_to` and
    `subspace`. With `checks_pruned` each pruned network is executed beside the masked original before it is trained.
    Networks are judged by `quality`, the objective's where it names one.
    With `ends_early` a network is done when it meets the objective's bounds on quality, with `gives_up` also when it
    won't meet them (`tasks.early_end`).
    `block_start` is what pre-training begins with, `block_end` when it ends. `may_guess` lets a run go on whose full
    network has learned nothing.
    `reference` says what `full` in the objective is: the full network as the teacher, the same after the fine-tuning
    that the pruned ones get, or the better one. `static` assigns networks to processes as the paper does, in rounds.
    `pixels_source` says where the transforms come from, `command` what the run was begun with.
    `run` is the number of the run, the same whenever it is continued. Training graphs are printed to standard error
    behind the passes in `print_ir_after`, and verified between passes with `verify_each`. `notes` are told,
    `result_notes` stand in the result, too. `chosen` are the files, by name, of what nobody gave: they go into the
    run's folder. What is delivered has the `interface` and the `opset` of the network that was given; with
    `keeps_batchnorm` BatchNormalization stays in it. Each pipeline of `finish` makes a further file of the best
    network, and nothing else depends on it: they are none of `inputs_of`. With `search` networks are found and not
    given: `subspace` then has those of which the pieces of the space are known. `whole` is the network with its
    postprocessing, where it has some: the best network is written with that, too. `image_shape` is the shape of the
    network's first input, the batch left out.
    """

    title: str
    network: Model
    modules_source: str
    untrained: tuple[str, ...]
    all_untrained: bool
    train_transform: InputTransform
    test_transform: InputTransform
    image_shape: tuple[int, ...]
    data_title: str
    dataset: Dataset
    subspace: Subspace
    objective: Objective
    teacher_solver: Solver
    solver: Solver
    pretrain_solver: Solver
    out: Path
    quality: Quality = ACCURACY
    baseline: bool = False
    identifier: Method = "maximal"
    groups: Literal["joint", "paper"] = "joint"
    memory_budget: int | None = None
    criterion: str = "l1"
    round_to: int | None = 1
    target: Target = "onnx"
    device: Device = CPU
    embed_normalization: bool = False
    data_on_device: bool = False
    precision: Precision = "float32"
    block_start: BlockStart = "closed-form"
    block_end: Literal["plateau", "all-steps"] = "plateau"
    checks_pruned: bool = True
    ends_early: bool = True
    gives_up: bool = False
    may_guess: bool = True
    reference: Reference = "better"
    static: bool = False
    seed: int = 0
    run: str = ""
    command: str = ""
    pixels_source: str = ""
    notes: tuple[str, ...] = ()
    result_notes: tuple[str, ...] = ()
    print_ir_after: tuple[str, ...] = ()
    verify_each: bool = False
    chosen: Mapping[str, bytes] = field(default_factory=dict)
    interface: SetInterface = UNCHANGED
    opset: int = OPSET
    keeps_batchnorm: bool = False
    finish: tuple[Pipeline, ...] = ()
    search: Searching | None = None
    whole: Model | None = None
    lesson: Lesson = LABELLED

    @property
    def rounding(self) -> Rounding:
        return rounding(self.round_to, self.subspace.rates if self.search is None else self.search.rates)

    @property
    def wants_latency(self) -> bool:
        """Whether the objective speaks of it: it is measured only then."""
        named = (self.objective.metric, *(c.metric for c in self.objective.constraints))
        return any(metric == Metric.LATENCY for metric in named)


def check(job: Job) -> None:
    """Raises WootzError where the inputs of a job don't fit each other."""
    check_quality_bounds(job.objective)
    _check_quality(job)
    if job.search is not None:
        check_searchable(job.objective)
    if (pixels := job.dataset.train.pixels) is not None:
        check_channels(job.test_transform, pixels.shape[1])
    for name in job.dataset.classes:
        check_name(name)
    classes = len(job.dataset.classes)
    output = job.network.graph.outputs[0]
    shape = tensor_shape(output)
    are_classes = all(loss.kind == "softmax-cross-entropy" and not loss.output for loss in job.lesson.losses)
    if job.dataset.train.has_classes and are_classes and shape is not None and shape[1] != classes:
        raise WootzError(
            f"the network tells {shape[1]} classes apart ({output.name}), the data set has {classes}: without "
            f"--keep-head it gets a new last layer for them, and is fine-tuned first"
        )
    for name, solver in (
        ("teacher's solver", job.teacher_solver),
        ("solver", job.solver),
        ("pre-training solver", job.pretrain_solver),
    ):
        if solver.batch_size > len(job.dataset.train):
            raise WootzError(
                f"batch_size {solver.batch_size} of the {name} exceeds the {len(job.dataset.train)} training images"
            )


def _check_quality(job: Job) -> None:
    """Raises WootzError for a quality that can't be measured with these data of this network."""
    quality, named = job.quality, job.quality.metric
    if job.objective.quality not in (None, named):
        raise WootzError(f"the objective is about {job.objective.quality}, and the run about {named}")
    if quality.of_classes and not is_classifier(job.network):
        names = ", ".join(tensor.name for tensor in job.network.graph.outputs)
        raise WootzError(
            f"{named} is of networks with one output [N, classes], and this one gives {names}: OutputError is for "
            f"others, or --scores NAME for one of several outputs"
        )
    is_labelled = job.dataset.train.labels is not None
    if named.needs_labels and not is_labelled:
        raise WootzError(
            f"{named} needs labels, and the data have none: Agreement and OutputError compare with the full network"
        )
    if job.untrained and (quality.compares or not job.lesson.losses):
        targets = "no loss of their targets is known" if is_labelled else "the data have no labels"
        why = f"{named} compares with it" if quality.compares else f"{targets} to train them by"
        raise WootzError(f"the full network has layers without weights ({', '.join(job.untrained)}), and {why}")


def check_channels(transform: InputTransform, channels: int) -> None:
    """Raises WootzError for a transform that is not for images of so many channels."""
    for name, values in (("mean", transform.mean), ("scale", transform.scale)):
        if len(values) not in (1, channels):
            wanted = "1" if channels == 1 else f"1 or {channels}"
            raise WootzError(
                f"the {name} of the input has {len(values)} values, for images of {channels} channels: give {wanted}"
            )


def inputs_of(job: Job, digests: Digests) -> dict[str, str]:
    """All that the result of a job depends on, by the names that users know: short texts, or digests."""
    solvers = {"solver": job.solver, "teacher's solver": job.teacher_solver, "pre-training solver": job.pretrain_solver}
    return {
        "network": digests.program(job.network),
        "data": job.dataset.digest,
        "subspace": digest(repr(job.subspace).encode()),
        "objective": str(job.objective),
        "--metric": job.quality.text,
        **{name: digest(repr(solver).encode()) for name, solver in solvers.items()},
        "input transform": digest(repr((job.train_transform, job.test_transform)).encode()),
        "--baseline": str(job.baseline),
        "--identifier": job.identifier,
        "--groups": job.groups,
        "--criterion": job.criterion,
        "--round-to": str(job.round_to or f"at most {FAST_MULTIPLE}"),
        "--target": job.target,
        "--precision": job.precision,
        "--block-start": job.block_start,
        "--block-end": job.block_end,
        "--device": job.device.numerics,
        "--embed-normalization": str(job.embed_normalization),
        "interface of the network": repr(job.interface),
        "--opset": str(job.opset),
        "--keep-batchnorm": str(job.keeps_batchnorm),
        "--check": str(job.checks_pruned),
        "--early-end": str(job.ends_early),
        "--give-up": str(job.gives_up),
        "--reference": job.reference,
        "--seed": str(job.seed),
        **({"--output-weights": repr(job.lesson.output_weights)} if job.lesson.output_weights else {}),
        **_inputs_of_lesson(job.lesson),
        **({} if job.search is None else _inputs_of_search(job.search)),
    }


def _inputs_of_lesson(lesson: Lesson) -> dict[str, str]:
    """What is learned beside labels, or otherwise."""
    found = {"--loss": repr(lesson.losses)} if lesson.losses != LABELLED.losses else {}
    taught = replace(lesson, losses=LABELLED.losses, output_weights=())
    return found if taught == LABELLED else {**found, "--distill": repr(taught)}


def _inputs_of_search(search: Searching) -> dict[str, str]:
    listed = search.space.listed
    return {
        "space": digest(repr(search.space).encode()),
        "--networks": str(search.networks),
        **({"--subspace": digest(repr(listed).encode())} if listed else {}),
        "--looks": str(search.looks),
        "--latency-table": digest(repr(search.latency_table).encode()),
    }
