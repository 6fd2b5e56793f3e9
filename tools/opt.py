"""`wootz-opt`: runs passes on one model, and prints what they do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from wootz.tools.cli import DEBUG, run_command

if TYPE_CHECKING:  # what follows is imported when it is needed: `wootz-opt --version` takes a tenth of a second
    import numpy as np

    from wootz.passes.base import Pass
    from wootz.passes.ir.model import Model
    from wootz.passes.pipeline import Step
    from wootz.passes.registry import PassClasses
    from wootz.passes.transforms.int8 import Quantization

ELIDE_OVER = 100
"""Weights of more elements are left out of what is printed, unless --elide-weights says otherwise."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"With {DEBUG} anywhere on the command line, an error shows its traceback.",
)
@click.version_option(package_name="wootz")
@click.argument("model", required=False)
@click.option("-o", "--output", metavar="FILE", help="Write the result there: .onnx, .onnxtxt, - (standard output).")
@click.option("--opset", metavar="N", help="Write -o FILE.onnx in that opset, or the model's own: original.")
@click.option("--pass", "passes", multiple=True, metavar="NAME{option=value}", help="Run a pass; repeat for more.")
@click.option("--pass-pipeline", "pipeline", metavar="A,B{x=1}", help="Run several passes, before those of --pass.")
@click.option("--load-pass", multiple=True, type=click.Path(path_type=Path), help="Take passes from a Python file.")
@click.option("--list-passes", is_flag=True, help="List all passes.")
@click.option("--list-pipelines", is_flag=True, help="List the pipelines that have names, and their passes.")
@click.option("--help-pass", metavar="NAME", help="Explain a pass and its options.")
@click.option("--verify-each/--no-verify-each", default=True, help="Verify the model after each pass (default).")
@click.option("--check-equivalence", is_flag=True, help="Run the model around each pass that promises equal outputs.")
@click.option(
    "--check/--no-check", default=True, help="Execute what a pass pruned beside the masked original (default)."
)
@click.option("--allow-unchanged", is_flag=True, help="Let a pass that was asked to prune remove nothing.")
@click.option("--print-ir-before", multiple=True, metavar="NAME", help="Print the model before that pass.")
@click.option("--print-ir-after", multiple=True, metavar="NAME", help="Print the model after that pass.")
@click.option("--print-ir-after-all", is_flag=True, help="Print the model after every pass.")
@click.option("--elide-weights", type=click.IntRange(0), metavar="N", help="Leave out weights of more than N elements.")
@click.option("--timing", is_flag=True, help="Print the seconds that each pass took.")
@click.option("--stats", is_flag=True, help="Print what the passes counted.")
@click.option("--data", type=click.Path(path_type=Path), help="Arrays (.npz) for passes with an option data.")
@click.option("--plan", type=click.Path(path_type=Path), help="Write the pruning plan there, as JSON.")
@click.option(
    "--split-input-file", is_flag=True, help="Treat the parts between lines '# -----' as models of their own."
)
@click.option("--verify-diagnostics", is_flag=True, help="Expect the errors that '# expected-error: TEXT' lines state.")
def opt(model: str | None, **options: Any) -> int:
    """Runs passes on MODEL (.onnx, .onnxtxt, .prototxt, - for standard input) and prints or writes the result."""
    with _own_standard_output() as out:
        return _opt(out, model, options)


def _opt(out: TextIO, model: str | None, options: dict[str, Any]) -> int:
    from wootz.passes.registry import PIPELINES, load_passes

    loaded = {name: cls for file in options.pop("load_pass") for name, cls in load_passes(file).items()}
    list_passes, list_pipelines, help_pass = (options.pop(o) for o in ("list_passes", "list_pipelines", "help_pass"))
    if list_passes:
        _list_passes(loaded, out)
        return 0
    if list_pipelines:
        _list(PIPELINES, out)
        return 0
    if help_pass:
        _help_pass(help_pass, loaded, out)
        return 0
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    return _Run(model, loaded, out, **options).execute()


def main() -> None:
    """Entry point of the console script `wootz-opt`."""
    run_command(opt, sys.argv[1:])


@contextlib.contextmanager
def _own_standard_output() -> Iterator[TextIO]:
    """Standard output for the results alone: what libraries print there, in Python or below, goes to standard error."""
    shown: TextIO = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        if shown is not sys.__stdout__:  # replaced by whoever calls: no file descriptor of ours
            yield shown
            return
        shown.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
        try:
            with os.fdopen(kept, "w", encoding=shown.encoding, closefd=False) as out:
                yield out
        finally:
            os.dup2(kept, 1)
            os.close(kept)


def _list_passes(loaded: PassClasses, out: TextIO) -> None:
    from wootz.passes.registry import pass_class, pass_names

    _list({name: pass_class(name, loaded).summary() for name in pass_names(loaded)}, out)


def _list(lines: Mapping[str, str], out: TextIO) -> None:
    width = max(map(len, lines))
    for name, text in lines.items():
        click.echo(f"{name:{width}}  {text}", out)


def _help_pass(name: str, loaded: PassClasses, out: TextIO) -> None:
    import inspect
    from dataclasses import MISSING

    from wootz.passes.pipeline import print_value
    from wootz.passes.registry import pass_class

    cls = pass_class(name, loaded)
    click.echo(f"{name}\n\n{inspect.getdoc(cls)}", out)
    if cls.requires:
        click.echo(f"\nNeeds {cls.requires}.", out)
    if cls.options():
        click.echo("\nOptions:", out)
    width = max((len(f.name) for f in cls.options()), default=0)
    for f in cls.options():
        default = "" if f.default in (None, MISSING, (), "") else f" (default {print_value(f.default)})"
        click.echo(f"  {f.name.replace('_', '-'):{width}}  {f.metadata['help']}{default}", out)


class _Run:
    """One call of wootz-opt on one input, which may hold several models."""

    def __init__(self, source: str, loaded: PassClasses, out: TextIO, **options: Any):
        from wootz.passes.ir.files import check_output
        from wootz.passes.pipeline import parse_pass, parse_pipeline

        if options["output"] is not None:
            check_output(options["output"])
        if options["opset"] is not None:
            _check_opset(options["opset"], options["output"])
        self.source = source
        self.loaded = loaded
        self.out = out
        self.options = options
        texts = options["passes"]
        self.passes = (
            *parse_pipeline(options["pipeline"] or "", loaded),
            *(parse_pass(text, loaded) for text in texts),
        )
        switches = {"allow_unchanged": True} if options["allow_unchanged"] else {}
        switches |= {} if options["check"] else {"check": False}
        self.passes = tuple(_with_runtime(_with_data(_with(p, switches), options["data"])) for p in self.passes)
        self._check_printed_passes()

    def _check_printed_passes(self) -> None:
        from wootz.passes.errors import WootzError

        names = {p.name for p in self.passes}
        for asked in (*self.options["print_ir_before"], *self.options["print_ir_after"]):
            if asked not in names:
                raise WootzError(f"--print-ir-before/after {asked}: the pipeline has no such pass")

    def execute(self) -> int:
        from wootz.passes.errors import WootzError
        from wootz.passes.ir.files import decode, is_text, load, read
        from wootz.passes.ir.text import parse_text, split_text

        if not (self.options["split_input_file"] or self.options["verify_diagnostics"]):
            try:
                self._process(lambda: load(self.source) if Path(self.source).suffix != ".prototxt" else self._import())
            except WootzError as error:
                if self.source in str(error):
                    raise
                raise WootzError(f"{error} ({self.source})") from error
            return 0
        content, file = read(self.source)
        if not is_text(content, file):
            raise WootzError(f"{file}: --split-input-file and --verify-diagnostics are for .onnxtxt")
        text = decode(content, file)
        parts = split_text(text) if self.options["split_input_file"] else [(text, 1)]
        if len(parts) > 1 and self.options["output"] not in (None, "-"):
            raise WootzError("--split-input-file prints several models: they can't go into one file")
        failures = []
        for i, (part, line) in enumerate(parts):
            if i:
                click.echo(SPLIT_LINE, self.out)
            failures += self._process_part(part, file, line, parse_text)
        for failure in failures:
            click.echo(f"error: {failure}", err=True)
        return 1 if failures else 0

    def _import(self) -> Model:
        from wootz.tools.models import open_network

        return open_network(self.source).model

    def _process_part(self, part: str, file: str, line: int, parse: Callable[..., Model]) -> list[str]:
        """Processes one model of several; gives what went other than expected."""
        from wootz.passes.errors import WootzError

        expected = _expected_errors(part, line) if self.options["verify_diagnostics"] else []
        try:
            self._process(lambda: parse(part, file, line))
            message = None
        except WootzError as error:
            message = str(error)
        if not self.options["verify_diagnostics"]:
            return [] if message is None else [message if message.startswith(file) else f"{file}:{line}: {message}"]
        if message is None:
            return [f"{file}:{at}: expected an error with {text!r}, and there was none" for at, text in expected]
        if not any(text in message for _, text in expected):
            return [f"{file}:{line}: unexpected error: {message}"]
        return [
            f"{file}:{at}: expected an error with {text!r}, but it is: {message}"
            for at, text in expected
            if text not in message
        ]

    def _process(self, load_model: Callable[[], Model]) -> None:
        from wootz.passes.pipeline import Observers, ir_printer, run_pipeline

        model = load_model()
        self.locations = self._locations(model)
        printer = ir_printer(
            partial(click.echo, err=True),
            self.options["print_ir_before"],
            None if self.options["print_ir_after_all"] else self.options["print_ir_after"],
            self._text,
        )
        checks = [_check_equivalence] if self.options["check_equivalence"] else []
        observers = Observers(before=printer.before, after=[*checks, *printer.after])
        result = run_pipeline(model, self.passes, self.options["verify_each"], observers)
        self._write(replace(result.model, source_opset=model.source_opset))
        self._write_plan(result.steps)
        self._report(result.steps)

    def _locations(self, model: Model) -> dict[int, str]:
        """The file that holds each weight, by the `id` of its array."""
        from wootz.passes.ir.model import constants
        from wootz.passes.ir.text import stored_locations

        file = Path(self.source)
        elsewhere = {}
        if file.suffix == ".onnxtxt" and not self.options["split_input_file"]:
            elsewhere = stored_locations(file.read_text())
        weights = constants(model.graph).items() if file.is_file() else ()
        return {id(values): elsewhere.get(name, self.source) for name, values in weights}

    def _text(self, model: Model) -> str:
        from wootz.passes.ir.text import print_text

        asked = self.options["elide_weights"]
        return print_text(model, ELIDE_OVER if asked is None else asked, self.locations)

    def _write(self, model: Model) -> None:
        from wootz.passes.ir.files import TEXT_SUFFIX, save, write_atomically
        from wootz.passes.ir.text import print_text

        output = self.options["output"]
        if output is None and any(p.name in ("print-stats", "verify") for p in self.passes[-1:]):
            return  # a pass that reports has been asked for, not a model
        if output in (None, "-"):
            click.echo(self._text(model), self.out, nl=False)
        elif output.endswith(TEXT_SUFFIX) and self.options["elide_weights"] is not None:
            text = print_text(model, self.options["elide_weights"], self.locations)
            write_atomically(Path(output), text.encode())
        elif self.options["opset"] is not None:
            asked = self.options["opset"]
            opset = model.source_opset if asked == ORIGINAL else int(asked)
            _check_in_opset(model, opset)
            save(model, output, opset)
        else:
            _check_training_graph(model, output)
            save(model, output)

    def _write_plan(self, steps: tuple[Step, ...]) -> None:
        from wootz.passes.errors import WootzError
        from wootz.passes.ir.files import write_atomically

        if self.options["plan"] is None:
            return
        plans = [step.result.plan for step in steps if step.result.plan is not None]
        if len(plans) != 1:
            raise WootzError(f"--plan needs one pass that prunes; the pipeline has {len(plans)}")
        write_atomically(self.options["plan"], plans[0].to_json().encode())

    def _report(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if step.result.report:
                click.echo(step.result.report, self.out, nl=False)
            for note in step.result.notes:
                click.echo(f"note: {step.pass_.name}: {note}", err=True)
        if self.options["stats"]:
            for step in steps:
                for what, count in step.result.statistics.items():
                    click.echo(f"{step.pass_.name}: {count:,} {what}", err=True)
        if self.options["timing"]:
            for step in steps:
                check = step.result.check_seconds
                part = f" ({check:.4f} s of it to check what was pruned)" if check else ""
                click.echo(f"{step.seconds:9.4f} s  {step.pass_.name}{part}", err=True)
            click.echo(f"{sum(step.seconds for step in steps):9.4f} s  all passes", err=True)


SPLIT_LINE = "# -----"
EXPECTED_ERROR = "# expected-error:"
ORIGINAL = "original"
"""--opset: that of the model that was read."""


def _check_training_graph(model: Model, output: str) -> None:
    """Raises WootzError, before anything is written, for a training graph that ONNX Runtime can't load.

    Not tried are graphs with kernels of one build of it, and those too large for one message.
    """
    from wootz.passes.errors import InputError, WootzError
    from wootz.passes.ir.files import LARGEST_MESSAGE
    from wootz.passes.ir.initial_values import without_initial_values
    from wootz.passes.ir.model import TRAINING_KEY, constants

    program, _ = without_initial_values(model)
    functions = {f.domain for f in model.graph.functions}
    is_standard = all(not node.domain or node.domain in functions for node in program.graph.nodes)
    size = sum(values.nbytes for values in constants(program.graph).values())
    if (
        TRAINING_KEY not in model.metadata
        or Path(output).suffix != ".onnx"
        or not is_standard
        or size > LARGEST_MESSAGE
    ):
        return
    try:
        from wootz.runtime.session import check_loadable
    except WootzError as missing:
        click.echo(f"note: not tried in ONNX Runtime: {missing}", err=True)
        return
    try:
        check_loadable(program)
    except WootzError as error:
        raise InputError(f"not written, as it can't be loaded: {error}", output) from error


def _check_opset(asked: str, output: str | None) -> None:
    """Raises WootzError for an --opset that isn't one, or for text, which has the IR's."""
    from wootz.passes.errors import WootzError
    from wootz.passes.ir.model import NEWEST_OPSET, OLDEST_OPSET, OPSET

    if asked != ORIGINAL and not (asked.isdecimal() and OLDEST_OPSET <= int(asked) <= NEWEST_OPSET):
        raise WootzError(
            f"--opset {asked}: a number from {OLDEST_OPSET} to {NEWEST_OPSET} belongs there, or {ORIGINAL}"
        )
    if output is None or Path(output).suffix != ".onnx":
        raise WootzError(f"--opset is for -o FILE.onnx: the textual form has opset {OPSET}")


def _check_in_opset(model: Model, opset: int) -> None:
    """Raises WootzError where the model in that opset isn't valid, or computes something else on random inputs.

    An opset that ONNX Runtime is too old for is brought back to the IR's before it is run.
    """
    from wootz.passes.equivalence import model_difference
    from wootz.passes.errors import WootzError
    from wootz.passes.ir.model import Model
    from wootz.runtime.session import evaluate, runs_opset

    runs = runs_opset(opset)
    written = model.copy() if runs else Model.from_proto(model.to_proto(opset))

    def evaluate_either(either: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return evaluate(either, feeds, opset=opset) if runs and either is written else evaluate(either, feeds)

    if difference := model_difference(model, written, evaluate_either):
        raise WootzError(f"in opset {opset} the model gives another {difference.tensor!r}: {difference}")


def _expected_errors(part: str, first_line: int) -> list[tuple[int, str]]:
    """The lines that state an error, and the text that it has to contain."""
    return [
        (first_line + i, line.strip().removeprefix(EXPECTED_ERROR).strip())
        for i, line in enumerate(part.splitlines())
        if line.strip().startswith(EXPECTED_ERROR)
    ]


def _with_data(pass_: Pass, file: Path | None) -> Pass:
    """Gives a pass that looks at data the file of --data, where its own option names none."""
    if file is None or getattr(pass_, "data", file) is not None:
        return pass_
    return replace(pass_, data=file)  # type: ignore[call-arg]


def _with(pass_: Pass, switches: Mapping[str, bool]) -> Pass:
    """The pass with those of the options set that it has."""
    own = {f.name for f in fields(pass_)}
    return replace(pass_, **{name: value for name, value in switches.items() if name in own})


def _with_runtime(pass_: Pass) -> Pass:
    """Gives a pass that executes graphs, or quantises them, ONNX Runtime to do it with."""
    own = {f.name for f in fields(pass_)}
    tools: dict[str, Any] = {"evaluator": _evaluate, "quantizer": _quantize}
    return replace(pass_, **{name: tool for name, tool in tools.items() if name in own})


def _quantize(model: Model, feeds: Mapping[str, np.ndarray], asked: Quantization) -> Model:
    from wootz.runtime.delivery.quantization import quantize

    return quantize(model, feeds, asked)


def _evaluate(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ONNX Runtime is imported when a graph is executed, not before: that takes longer than most passes."""
    from wootz.runtime.session import evaluate

    return evaluate(model, feeds)


def _check_equivalence(step: Step, before: Model) -> None:
    """Raises PassError when the outputs differ across a pass that promises that they don't."""
    from wootz.passes.equivalence import model_difference
    from wootz.passes.errors import PassError

    if not step.pass_.preserves_outputs:
        return
    if difference := model_difference(before, step.result.model, _evaluate):
        raise PassError(step.pass_.name, f"changes output {difference.tensor!r}: {difference}")
