"""Makes a job of what `wootz run` was given: opens the network, reads its companions, loads the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from wootz.frontend.caffe.importer import ImportedNetwork
from wootz.frontend.caffe.solver import read_solver, solver_notes
from wootz.frontend.objective import parse_objective, read_objective
from wootz.frontend.subspace import read_subspace
from wootz.passes.analysis.data_criteria import DATA_CRITERIA
from wootz.passes.analysis.module_boundaries import check_modules, gap_notes
from wootz.passes.analysis.modules import find_modules
from wootz.passes.errors import InputError, WootzError
from wootz.passes.ir.model import tensor_shape
from wootz.passes.pipeline import parse_pipeline
from wootz.passes.plan.objective import Objective
from wootz.passes.plan.solver import Solver
from wootz.passes.plan.transform import InputTransform
from wootz.passes.pruning.block_pruner import BlockPruner
from wootz.passes.registry import PIPELINES
from wootz.runtime.dataset import load_dataset
from wootz.runtime.executors.team import Team
from wootz.runtime.job import Job
from wootz.runtime.machine import default_memory_budget
from wootz.runtime.resident import keeps_on_device
from wootz.runtime.session import Device, cuda_obstacle
from wootz.tools.models import AS_EXPORTED, open_classifier, prunable_network

DEFAULT_EXAMPLE = "digits"


def run_name(model: str | None) -> str:
    """What a run is called if nobody says: the network's file, or the folder of a `net.prototxt`."""
    if model is None:
        return DEFAULT_EXAMPLE
    path = Path(model).resolve()
    return path.parent.name if path.stem == "net" else path.stem


def make_job(model: str | None, out: Path, options: Mapping[str, Any], team: Team) -> Job:
    """The job of `wootz run MODEL` with its options, by name, for a `team`. Raises WootzError for any fault of them."""
    folder = _example_folder() if model is None else Path(model) if Path(model).is_dir() else None
    network_file = str(folder / "net.prototxt") if folder else str(model)
    files = _Files(folder, options)
    network = open_classifier(network_file, options["weights"], options["seed"], options["scores"], options["size"])
    solver_file = files.path("solver", "solver.prototxt")
    teacher_solver_file = files.optional_path("teacher_solver", "teacher.prototxt") or solver_file
    pretrain_solver_file = files.path("pretrain_solver", "pretrain.prototxt")
    solver = read_solver(solver_file)
    device, device_notes = _device(solver, options)
    modules, source = find_modules(network.model)
    check_modules(network.model, modules)
    full_network = replace(network.model, modules=modules)
    criterion = "l1" if options["criterion"] in DATA_CRITERIA else options["criterion"]
    prunable = prunable_network(BlockPruner.of(full_network, criterion))
    subspace, warnings = read_subspace(files.path("subspace", "subspace.json"), prunable)
    data = options["data"] or solver.data or (DEFAULT_EXAMPLE if model is None else "")
    if not data:
        raise WootzError("--data is missing: the folder of the data set")
    train_transform, test_transform = (_override(t, options) for t in (network.train_transform, network.test_transform))
    dataset = load_dataset(data, _image_shape(network), train_transform.crop_size, options["seed"])
    return Job(
        title=_title(model),
        network=full_network,
        modules_source=source,
        untrained=network.initialised,
        all_untrained=network_file.endswith(".prototxt") and not options["weights"],
        train_transform=train_transform,
        test_transform=test_transform,
        image_shape=_image_shape(network),
        data_title=data,
        dataset=dataset,
        subspace=subspace,
        objective=_objective(files),
        teacher_solver=read_solver(teacher_solver_file),
        solver=solver,
        pretrain_solver=read_solver(pretrain_solver_file),
        out=out,
        baseline=options["baseline"],
        identifier=options["identifier"],
        groups=options["groups"],
        memory_budget=_memory_budget(options, device, team.per_machine),
        criterion=options["criterion"],
        target=options["target"] or ("onnx-cuda" if device.kind == "cuda" else "onnx"),
        device=device,
        embed_normalization=options["embed_normalization"],
        data_on_device=keeps_on_device(device, dataset.train, options["data_on_device"]),
        precision=options["precision"],
        checks_pruned=options["check"],
        ends_early=options["early_end"],
        gives_up=options["give_up"],
        static=options["static"],
        seed=options["seed"],
        notes=(
            *device_notes,
            *network.notes,
            *_pixel_notes(network, options),
            *gap_notes(network.model, modules),
            *warnings,
            *_solver_notes((solver_file, teacher_solver_file, pretrain_solver_file)),
            *_machine_notes(solver, team.workers),
            *_notes_for_cpu(device, options),
        ),
        print_ir_after=_passes_of_training(options["print_ir_after"]),
        verify_each=options["verify_each"],
    )


def _passes_of_training(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if they are those of passes that make training graphs."""
    known = dict.fromkeys(pass_.name for pipeline in PIPELINES for pass_ in parse_pipeline(pipeline))
    for name in names:
        if name not in known:
            raise WootzError(f"--print-ir-after {name}: no training graph is made by such a pass ({', '.join(known)})")
    return names


def _solver_notes(files: Iterable[Path]) -> Iterator[str]:
    """Fields without effect, each file once."""
    for file in dict.fromkeys(files):
        yield from solver_notes(file)


def _memory_budget(options: Mapping[str, Any], device: Device, processes: int) -> int | None:
    """Bytes for pre-training in one process; without --memory half of the machine's, on GPUs no bound."""
    if options["memory"] is None:
        return default_memory_budget(processes) if device.kind == "cpu" else None
    if options["groups"] == "paper":
        raise WootzError("--memory goes with --groups=joint: the paper's groups don't depend on memory")
    budget: int = options["memory"]
    return budget


def _pixel_notes(network: ImportedNetwork, options: Mapping[str, Any]) -> Iterator[str]:
    """What an ONNX file that doesn't say how pixels become its input is given, if nobody says."""
    if network.test_transform is AS_EXPORTED and options["mean"] is None and options["scale"] is None:
        yield (
            "The network doesn't say how pixels become its input: it is given RGB pixels from 0 to 255 as they are; "
            "--mean and --scale (and --channel-order) say otherwise."
        )


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


def _objective(files: _Files) -> Objective:
    given = files.options["objective"]
    if given and not Path(given).is_file():
        if len(given.split()) == 1 and Path(given).suffix:  # a file's name: the shortest objective has two words
            raise InputError("no such file: --objective takes a file, or a text such as 'min ModelSize'", given)
        return parse_objective(given, "--objective")
    return read_objective(files.path("objective", "objective.txt"))


def _image_shape(network: ImportedNetwork) -> tuple[int, int, int]:
    channels, height, width = (int(extent) for extent in (tensor_shape(network.model.graph.inputs[0]) or ())[1:])
    return channels, height, width


def _override(transform: InputTransform, options: Mapping[str, Any]) -> InputTransform:
    given: dict[str, Any] = {
        "mean": _numbers("--mean", options["mean"]),
        "scale": _numbers("--scale", options["scale"]),
        "channel_order": options["channel_order"],
        "mirror": options["mirror"],
    }
    return replace(transform, **{name: value for name, value in given.items() if value is not None})


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise WootzError(f"{flag} {text}: not a number, or numbers with commas between them") from error
    if flag == "--scale" and 0 in numbers:
        raise WootzError(f"{flag} {text}: pixels times 0 are all the same")
    return numbers


def _device(solver: Solver, options: Mapping[str, Any]) -> tuple[Device, tuple[str, ...]]:
    """Where the run computes, and a note where that is not what the solver asks for.

    Raises WootzError where --device asks for what isn't there.
    """
    kind: Literal["cpu", "cuda"] = options["device"] or ("cuda" if solver.solver_mode == "GPU" else "cpu")
    notes: tuple[str, ...] = ()
    obstacle = cuda_obstacle() if kind == "cuda" else ""
    if obstacle and options["device"]:
        raise WootzError(f"--device cuda: {obstacle}; run on the CPU with --device cpu")
    if obstacle:
        kind = "cpu"
        notes = (f"The solver asks for a GPU (solver_mode), but {obstacle}: this runs on the CPU.",)
    return Device(kind, options["threads"], tf32=options["tf32"], cuda_graphs=options["cuda_graphs"]), notes


@dataclass(frozen=True)
class _Files:
    """Where the inputs are: options, else files of conventional names beside the network."""

    folder: Path | None
    options: Mapping[str, Any]

    def path(self, option: str, conventional: str) -> Path:
        """The file for `option`. Raises WootzError when it is neither given nor beside the network."""
        found = self.optional_path(option, conventional)
        if found is not None:
            return found
        flag = "--" + option.replace("_", "-")
        beside = f", or a file {conventional} in {self.folder}" if self.folder else ""
        raise WootzError(f"{flag} is missing{beside}")

    def optional_path(self, option: str, conventional: str) -> Path | None:
        if self.options[option]:
            return Path(self.options[option])
        if self.folder is not None and (self.folder / conventional).is_file():
            return self.folder / conventional
        return None
