"""`wootz`: the command group. Each command is a module of `wootz.tools.commands`, imported when it is called."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any

import click

from wootz.passes.errors import WootzError, one_line

DEBUG = "--debug"


@dataclass(frozen=True)
class Listed:
    """A command as `wootz --help` lists it: where it is, as `module:function`, and the first sentence of its help."""

    place: str
    summary: str


COMMANDS = {
    "import": Listed(
        "wootz.tools.commands.import_model:import_model", "Reads a Caffe network and writes it as an ONNX model."
    ),
    "subspace": Listed("wootz.tools.commands.subspace:subspace", "Make promising subspaces."),
    "blocks": Listed(
        "wootz.tools.commands.blocks:blocks",
        "Show the tuning blocks of MODEL for a subspace, what they cost and what they save.",
    ),
    "latency": Listed(
        "wootz.tools.commands.latency:latency",
        "Measure how long MODEL and its modules take, or several models side by side.",
    ),
    "run": Listed("wootz.tools.commands.run:run", "Find the best pruned version of MODEL for the images in --data."),
    "search": Listed(
        "wootz.tools.commands.search:search",
        "Search all pruned versions of MODEL for the best one for the images in --data.",
    ),
    "status": Listed(
        "wootz.tools.commands.status:status", "Tell where the run in RUN stands: running, finished or dead."
    ),
    "simulate": Listed(
        "wootz.tools.commands.simulate:simulate_command",
        "Tell what the finished run in RUN would take with other numbers of workers.",
    ),
    "report": Listed(
        "wootz.tools.commands.report:report",
        "Write the HTML page and the plots of the run in RUN, from its result.json.",
    ),
    "store": Listed(
        "wootz.tools.commands.store:store",
        "Show and tidy what has been trained: runs take from the store what they need, and never train it twice.",
    ),
    "cache": Listed(
        "wootz.tools.commands.cache:cache",
        "Show and tidy decoded photographs: what is removed is decoded again when a run needs it.",
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, and not to be listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].place.partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but from the summaries of COMMANDS."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, click.Command(name, help=c.summary).get_short_help_str(room)) for name, c in COMMANDS.items()]
            )


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"With {DEBUG} anywhere on the command line, an error shows its traceback.",
)
@click.version_option(package_name="wootz")
def wootz() -> None:
    """Finds the best pruned version of a trained CNN."""


def main() -> None:
    """Entry point of the console script `wootz`."""
    run_command(wootz, sys.argv[1:])


def _naming_all_missing(error: click.MissingParameter) -> click.ClickException:
    """The same error, of all that is missing and not of the first one alone."""
    context = error.ctx
    if context is None:
        return error
    missing = [p for p in context.command.params if p.required and p.name not in context.params]
    return click.UsageError(f"Missing: {', '.join(p.get_error_hint(context) for p in missing)}", context)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run_command(command: click.Command, arguments: Sequence[str]) -> None:
    """Runs `command` and exits: 0 done, 1 the input is at fault (one line), 2 usage, 130 interrupted.

    SIGTERM ends it as Ctrl-C does.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    debug = DEBUG in arguments
    try:
        result: Any = command.main([a for a in arguments if a != DEBUG], standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.MissingParameter as error:
        _naming_all_missing(error).show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as interrupt:
        click.echo(str(interrupt) or "interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (WootzError, OSError) as error:
        if debug:
            raise
        click.echo(f"error: {one_line(str(error))}", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        place = "; ".join(getattr(error, "__notes__", ["a fault of wootz"]))
        said = one_line(f"{type(error).__name__}: {error}")
        click.echo(f"error: {said} ({place}: {DEBUG} shows where)", err=True)
        sys.exit(1)
