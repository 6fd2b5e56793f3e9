"""Makes a job of what `wootz run` was given: opens the network, reads its companions, loads the data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from wootz.passes.analysis.data_criteria import DATA_CRITERIA
from wootz.passes.analysis.module_boundaries import check_modules, gap_notes
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import WootzError
from wootz.passes.ir.model import Model
from wootz.passes.pipeline import parse_pipeline
from wootz.passes.plan.lesson import Lesson
from wootz.passes.plan.metrics import Metric
from wootz.passes.plan.solver import Solver
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.registry import PIPELINES
from wootz.passes.training.distill import Distill
from wootz.passes.training.legalize import Target
from wootz.passes.training.mixed_precision import Precision
from wootz.passes.training.parameters import with_frozen
from wootz.passes.training.training_graph import build_training_graph
from wootz.passes.transforms.image_classifier import check_scores
from wootz.runtime.data.dataset import Dataset
from wootz.runtime.data.loading import DIGITS
from wootz.runtime.defaults import (
    BATCH_SIZE,
    Circumstances,
    fitting_batch_size,
    rounding,
    wanted_batch_size,
)
from wootz.runtime.delivery.delivered import with_opset
from wootz.runtime.delivery.finish_pipelines import read_pipelines
from wootz.runtime.executors.team import Team
from wootz.runtime.inputs import inputs_of_network
from wootz.runtime.job import Job, Reference, check
from wootz.runtime.machine import SHARE_FOR_TRAINING, default_memory_budget, gpu_count, gpu_memory
from wootz.runtime.quality.own import check_sent, read_quality
from wootz.runtime.quality.quality import Quality
from wootz.runtime.quality.table import judged_by, metrics
from wootz.runtime.resident import keeps_on_device
from wootz.runtime.run_directory import CommandName
from wootz.runtime.session import Device, cuda_obstacle, fastest_target
from wootz.runtime.store import Store
from wootz.runtime.tasks.program import Program
from wootz.runtime.tasks.recipe import Digests
from wootz.runtime.tasks.workshop import Workshop
from wootz.tools.budget import within_budget
from wootz.tools.companions import (
    CompanionFiles,
    Companions,
    RunFiles,
    Solvers,
    complete_companions,
    read_given_objective,
    read_solvers,
)
from wootz.tools.data import open_data
from wootz.tools.head import fit_head
from wootz.tools.lesson import (
    are_of_classes,
    found_losses,
    lesson_notes,
    lesson_of,
    output_weights,
    suggested_lesson,
)
from wootz.tools.models import open_trainable, weights_beside
from wootz.tools.pixels import as_stated, find_pixels

DEFAULT_EXAMPLE = "digits"


@dataclass(frozen=True)
class Given:
    """What a program gives in place of the options --data and --metric."""

    data: Any = None
    data_title: str = ""
    metric: Quality | None = None


NOTHING_GIVEN = Given()
NORMALIZATIONS = ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization")


def run_name(command: CommandName, model: str | None) -> str:
    """What a run is called if nobody says: the network's file, or the folder of a `net.prototxt`. A search is called
    otherwise, so that both have a place."""
    path = Path(DEFAULT_EXAMPLE if model is None else model).resolve()
    name = path.parent.name if path.name == "net.prototxt" else path.stem
    return f"{name}-search" if command == "search" else name


def make_job(
    model: str | None,
    out: Path,
    options: Mapping[str, Any],
    team: Team,
    open_store: Callable[[], Store],
    run_files: RunFiles | None = None,
    given: Given = NOTHING_GIVEN,
) -> Job:
    """The job of `wootz run MODEL` with its options, by name, for a `team`; `run_files` are those of a run that
    is repeated or continued, `given` what Python code has handed over. Raises WootzError for any fault of them.

    The store is opened where something has to be measured, and remembers it.
    """
    folder = _example_folder() if model is None else Path(model) if Path(model).is_dir() else None
    files = CompanionFiles(options, folder, run_files)
    solvers = read_solvers(files)
    network_file = str(folder / "net.prototxt") if folder else str(model)
    weights = options["weights"] or weights_beside(network_file)
    network = open_trainable(network_file, weights, options["seed"], options["scores"], options["size"])
    data = given.data_title or _data_location(model, solvers, options)
    device, device_notes = _device(solvers.fine_tuning, options)
    transforms = as_stated(network.train_transform, options), as_stated(network.test_transform, options)
    if given.metric is not None and not team.is_this_process:
        check_sent(given.metric)
    dataset, transforms = open_data(data, network, transforms, options, given.data)
    own = given.metric or (read_quality(options["metric"]) if options["metric"] else None)
    objective = read_given_objective(files, metrics(own))
    counting = output_weights(options["output_weights"], network.model)
    quality = judged_by(objective, dataset, network.model, own, dict(counting))
    losses = found_losses(options, quality, dataset, network.model)
    if are_of_classes(losses.losses, dataset.train):
        check_scores(network.model)
        network = fit_head(network, len(dataset.classes), options["new_head"], options["seed"])
    suggested = suggested_lesson(losses.losses, quality, network.model, counting)
    lesson = lesson_of(options, suggested, is_given=not network.initialised, output_weights=counting)
    network = replace(network, model=with_frozen(network.model, options["freeze"]))
    modules, source = find_modules(network.model)
    check_modules(network.model, modules)
    open_store = cache(open_store)
    full_network = replace(network.model, modules=modules)
    criterion = "l1" if options["criterion"] in DATA_CRITERIA else options["criterion"]
    pruner = BlockPruner.of(full_network, criterion)
    pixels = find_pixels(network, dataset, transforms, options, run_files, device, open_store)
    all_untrained = network_file.endswith(".prototxt") and not weights
    target: Target = options["target"] or fastest_target(device)
    memory_budget = _memory_budget(options, device, team.per_machine)
    circumstances = Circumstances(
        training_images=len(dataset.train),
        validation_images=len(dataset.validation),
        batch_size=_batch_size(
            full_network, len(dataset.train), solvers, memory_budget, device, options["precision"], lesson, open_store
        ),
        normalizes=any(node.op in NORMALIZATIONS for node in full_network.graph.nodes),
        untrained="all" if all_untrained else "some" if network.initialised else "none",
        effort=options["effort"] or "normal",
        solver_mode="GPU" if device.kind == "cuda" else "CPU",
        seed=options["seed"],
    )
    image_shape = inputs_of_network(network.model)[0].shape
    choose = partial(complete_companions, files, solvers, pruner, image_shape, objective, quality.metric)
    companions = choose(circumstances)
    job = Job(
        title=_title(model),
        network=full_network,
        modules_source=source,
        untrained=network.initialised,
        all_untrained=all_untrained,
        train_transform=pixels.train_transform,
        test_transform=pixels.test_transform,
        image_shape=image_shape,
        data_title=data,
        dataset=dataset,
        subspace=companions.subspace,
        search=companions.search,
        objective=companions.objective,
        quality=quality,
        lesson=lesson,
        teacher_solver=companions.teacher_solver,
        solver=companions.solver,
        pretrain_solver=companions.pretrain_solver,
        out=out,
        baseline=_has_baseline(options),
        identifier=options["identifier"],
        groups=options["groups"],
        memory_budget=memory_budget,
        criterion=options["criterion"],
        round_to=options["round_to"],
        target=target,
        device=device,
        embed_normalization=options["embed_normalization"],
        data_on_device=keeps_on_device(device, dataset.train, options["data_on_device"]),
        precision=options["precision"],
        block_start=options["block_start"],
        block_end=options["block_end"],
        checks_pruned=options["check"],
        ends_early=options["early_end"],
        gives_up=options["give_up"],
        may_guess=options["allow_untrained"],
        reference=_reference(options["reference"], quality.metric, lesson),
        static=options["static"],
        seed=options["seed"],
        pixels_source=pixels.source,
        notes=(
            *device_notes,
            *_weights_notes(weights, options),
            *network.notes,
            *_rounding_notes(pruner, companions.rates, options),
            *_digits_notes(data),
            *dataset.notes,
            *_lesson_notes(dataset, quality.metric),
            *losses.notes,
            *gap_notes(network.model, modules),
            *companions.notes,
            *_normalization_notes(circumstances, companions),
            *_machine_notes(companions.solver, team.workers),
            *_notes_for_cpu(device, options),
        ),
        result_notes=(*pixels.notes, *lesson_notes(lesson, dataset.train.has_classes)),
        print_ir_after=_passes_of_training(options["print_ir_after"]),
        verify_each=options["verify_each"],
        chosen={**companions.chosen, **pixels.chosen},
        interface=network.interface,
        whole=network.whole,
        keeps_batchnorm=options["keep_batchnorm"],
        finish=read_pipelines(options["finish"]),
    )
    if run_files is None and not companions.is_adjustable:
        _check_nothing_chooses(options)
    check(job)
    job = with_opset(job, network.model.source_opset, options["opset"])
    if options["budget"] is None or not companions.is_adjustable:
        return job
    return within_budget(job, options["budget"], choose, circumstances, Workshop(job, open_store()))


def _check_nothing_chooses(options: Mapping[str, Any]) -> None:
    """Raises WootzError for options that would have no effect, since nothing is chosen."""
    for name in ("effort", "budget"):
        if options[name] is not None:
            raise WootzError(
                f"--{name} is about solvers and subspaces that are chosen, and all are given: leave it out"
            )


def _data_location(model: str | None, solvers: Solvers, options: Mapping[str, Any]) -> str:
    location = options["data"] or (solvers.fine_tuning.data if solvers.fine_tuning is not None else "")
    if not location and model is not None:
        raise WootzError(
            f"--data is missing: the folder of the images (wootz run {model} --data DIR); nothing else has to be given"
        )
    return location or DEFAULT_EXAMPLE


def _batch_size(
    network: Model,
    images: int,
    solvers: Solvers,
    budget: int | None,
    device: Device,
    precision: Precision,
    lesson: Lesson,
    open_store: Callable[[], Store],
) -> int:
    """Images of a step for solvers that have to be chosen: as many as fit into the memory, at most what is wanted."""
    if solvers.are_complete:
        return BATCH_SIZE
    if device.kind == "cuda":
        budget = int(SHARE_FOR_TRAINING * (gpu_memory() or 0)) or None
    digests, solver = Digests(), Solver(momentum=0.9)
    distill = Distill.of(lesson, network) if lesson.needs_teacher else None
    loss = lesson.losses if lesson.reads_targets else None
    build = partial(build_training_graph, network, solver, loss=loss, distill=distill, precision=precision)
    sources = ("network", digests.program(network), repr(solver), precision, repr(lesson))
    program = Program(build, sources, "the full network", open_store(), digests)
    return fitting_batch_size(wanted_batch_size(images), program.memory, budget)


def _passes_of_training(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if they are those of passes that make training graphs."""
    known = dict.fromkeys(
        pass_.name
        for pipeline, passes in PIPELINES.items()
        if "build-gradients" in passes
        for pass_ in parse_pipeline(pipeline)
    )
    for name in names:
        if name not in known:
            raise WootzError(f"--print-ir-after {name}: no training graph is made by such a pass ({', '.join(known)})")
    return names


def _has_baseline(options: Mapping[str, Any]) -> bool:
    if options["baseline"] and options["identifier"] == "none":
        raise WootzError("--baseline compares networks from blocks with those without: --identifier=none has no others")
    baseline: bool = options["baseline"]
    return baseline


def _memory_budget(options: Mapping[str, Any], device: Device, processes: int) -> int | None:
    """Bytes for pre-training in one process; without --memory half of the machine's, on GPUs no bound."""
    if options["memory"] is None:
        return default_memory_budget(processes) if device.kind == "cpu" else None
    if options["groups"] == "paper":
        raise WootzError("--memory goes with --groups=joint: the paper's groups don't depend on memory")
    budget: int = options["memory"]
    return budget


def _weights_notes(weights: str | None, options: Mapping[str, Any]) -> Iterator[str]:
    if weights and not options["weights"]:
        yield f"The weights are those in {weights}, beside the network (--weights)."


def _normalization_notes(circumstances: Circumstances, companions: Companions) -> Iterator[str]:
    if companions.is_adjustable and not circumstances.normalizes:
        yield (
            "The network normalises no activations, so its learning rates are small: if an exporter has folded its "
            "BatchNormalization, a file that has it will do better (docs/recipes.md)."
        )


def _reference(asked: Reference, quality: Metric, lesson: Lesson) -> Reference:
    """Raises WootzError where the full network is what others learn from or are compared with, as it was given, and its
    fine-tuning was asked for."""
    if quality.of_full is None and lesson.reads_targets:
        return asked
    if asked == "tuned":
        raise WootzError("--reference tuned: without labels, and for Agreement and OutputError, it is the one given")
    return "given"


def _lesson_notes(dataset: Dataset, quality: Metric) -> Iterator[str]:
    if dataset.train.labels is None:
        yield f"The images have no labels: networks learn from the full one, and are judged by {quality}."


def _digits_notes(data: str) -> Iterator[str]:
    if data == DIGITS and Path(DIGITS).exists():
        yield f"The data are scikit-learn's digits: --data ./{DIGITS} is what is here by that name."


def _rounding_notes(pruner: BlockPruner, rates: tuple[float, ...], options: Mapping[str, Any]) -> Iterator[str]:
    multiples = pruner.rounding_to(rounding(None, rates)).multiples
    if options["round_to"] is None and max(multiples, default=1) > 1:
        narrow = f" (narrow ones of {', '.join(map(str, multiples[1:]))})" if multiples[1:] else ""
        yield f"Layers keep multiples of {multiples[0]} filters{narrow}, which are fast; --round-to says otherwise."


def _machine_notes(solver: Solver, processes: int) -> tuple[str, ...]:
    if solver.machines in (0, processes):
        return ()
    return (f"The solver asks for {solver.machines} machines, {processes} take part: mpiexec -n {solver.machines}.",)


def _notes_for_cpu(device: Device, options: Mapping[str, Any]) -> Iterator[str]:
    """What options for GPUs mean on the CPU."""
    if device.kind == "cuda":
        return
    if options["precision"] != "float32":
        yield "--precision float16 on the CPU is slower than float32: it computes in float32 between casts."
    for option in ("tf32", "cuda_graphs"):
        if options[option]:
            yield f"--{option.replace('_', '-')} has no effect on the CPU."


def _example_folder() -> Path:
    return Path(str(resources.files("wootz.examples"))) / DEFAULT_EXAMPLE


def _title(model: str | None) -> str:
    return f"the example {DEFAULT_EXAMPLE!r}" if model is None else model


def _device(solver: Solver | None, options: Mapping[str, Any]) -> tuple[Device, tuple[str, ...]]:
    """Where the run computes, and a note where that is not what the solver asks for.

    Raises WootzError where --device asks for what isn't there.
    """
    wants_gpu = gpu_count() > 0 if solver is None else solver.solver_mode == "GPU"
    kind: Literal["cpu", "cuda"] = options["device"] or ("cuda" if wants_gpu else "cpu")
    notes: tuple[str, ...] = ()
    obstacle = cuda_obstacle() if kind == "cuda" else ""
    if obstacle and options["device"]:
        raise WootzError(f"--device cuda: {obstacle}; run on the CPU with --device cpu")
    if obstacle:
        kind = "cpu"
        asks = "There is a GPU" if solver is None else "The solver asks for a GPU (solver_mode)"
        notes = (f"{asks}, but {obstacle}: this runs on the CPU.",)
    return Device(kind, options["threads"], tf32=options["tf32"], cuda_graphs=options["cuda_graphs"]), notes
