"""`wootz`: the command group. Each command is a module of `wootz.tools.commands`, imported when it is called."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any

import click

from wootz.passes.errors import WootzError, one_line

DEBUG = "--debug"

COMMANDS = {
    "import": "wootz.tools.commands.import_model:import_model",
    "subspace": "wootz.tools.commands.subspace:subspace",
    "blocks": "wootz.tools.commands.blocks:blocks",
    "run": "wootz.tools.commands.run:run",
    "status": "wootz.tools.commands.status:status",
    "simulate": "wootz.tools.commands.simulate:simulate_command",
    "report": "wootz.tools.commands.report:report",
    "store": "wootz.tools.commands.store:store",
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command


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
