"""`electra COMMAND`: parses the command line, runs the command, and turns errors into an exit code.

Nothing heavy is imported before the arguments are parsed, so that help and mistakes are answered at once.
"""

import argparse
import functools
import importlib
import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn, TextIO

from electra_jax import runtime
from electra_jax.commands.gin_choice import evaluates_task
from electra_jax.commands.table import COMMANDS, GIN_HELP, HELP_STYLE
from electra_jax.distributed import processes
from electra_jax.errors import PREEMPTED, Preempted, Terminated, UserError, explain_os_error
from electra_jax.files import refusal
from electra_jax.training.stop import ended_by_signals, stop_with_parent


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: command line after the program's name; None for this process's.

    Returns:
        0; 2 after a user error, which is reported in one sentence on standard error; 75 if the platform asked to stop
        and the same command should be run again.
    """
    with ended_by_signals():
        options, bindings = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
        stop_with_parent()
        if not options.verbose:
            runtime.quieten_libraries()
        code = exit_code(functools.partial(run_command, options, bindings), verbose=options.verbose)
        write_last(sys.stdout, "")
    return code


class PrintVersion(argparse.Action):
    """Print the version, which is looked up only on demand: a checkout that is not installed has none."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the version, and exit."""
        print(f"electra-jax {importlib.metadata.version('electra-jax')}")
        parser.exit()


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split a command line into argparse's part and the `--gin.NAME=VALUE` bindings, as T5X does."""
    parser = argparse.ArgumentParser(
        prog="electra",
        description="Pre-train text encoders by replaced-token detection.",
        epilog=GIN_HELP,
        **HELP_STYLE,
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_to(commands, name)
    bindings = [argument.removeprefix("--gin.") for argument in arguments if argument.startswith("--gin.")]
    rest = [argument for argument in arguments if not argument.startswith("--gin.")]
    options, left = parser.parse_known_args(rest)
    # argparse takes a variable number of arguments only as one group, but options may stand between them.
    if left and (not hasattr(options, "arguments") or any(one.startswith("-") and one != "-" for one in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.arguments += left
    return options, bindings


def run_command(options: argparse.Namespace, bindings: list[str]) -> None:
    """Build the command's configuration from Gin, and call its module in every process that should run it.

    Raises:
        UserError: if there are Gin bindings for a command that takes none, or as the command raises it.
    """
    command = COMMANDS[options.command]
    if command.configuration is None:
        if bindings:
            raise UserError(f"electra {options.command} takes no Gin bindings (--gin.{bindings[0]})")
        importlib.import_module(f"electra_jax.commands.{command.module}").run(options)
        return
    from electra_jax.config import gin_files

    quietly = not options.verbose
    if quietly and any("gs://" in binding for binding in bindings):
        runtime.load_tensorflow_quietly()
    if command.for_task is not None and evaluates_task(bindings):
        command = command.for_task
    bindings = [*bindings, *command.place_arguments(options, bindings)]
    module, _, name = command.configuration.partition(".")
    configuration = gin_files.build(
        getattr(importlib.import_module(f"electra_jax.config.{module}"), name),
        command.gin_files(options.gin_file, bindings),
        [*(f"{macro} = 'unneeded'" for macro in command.unneeded), *bindings],
        search_paths=[path for path in options.gin_search_paths.split(",") if path],
    )
    runtime.set_determinism(configuration)
    if quietly and command.reads_text:
        runtime.load_tensorflow_quietly()
    run = importlib.import_module(f"electra_jax.commands.{command.module}").run
    given = [configuration, options] if command.arguments else [configuration]
    if command.processes == "apart":
        run(*given)
        return
    with processes.process_group(gin_files.resolved()):
        if command.processes == "together" or processes.leader():
            run(*given)


def exit_code(action: Callable[[], None], *, verbose: bool) -> int:
    """Run an action, print its error, if any, and tell the other processes of the run.

    Returns:
        The exit code, see `main`.
    """
    try:
        action()
    except Preempted:
        return PREEMPTED
    except UserError as error:
        return fail(str(error), verbose)
    except Terminated as error:
        write_last(sys.stderr, f"electra: ended by {error}: run the same command again\n")
        processes.leave(PREEMPTED, f"it was ended by {error}")
        return PREEMPTED
    except KeyboardInterrupt:
        return fail("interrupted", verbose)
    except Exception as error:
        sentence = explain_os_error(error) or refusal(error)
        if sentence is not None:
            return fail(sentence, verbose)
        if processes.group() is not None:
            traceback.print_exc()
            processes.leave(1, f"it failed ({type(error).__name__}: see its log)")
        raise
    return 0


def fail(sentence: str, verbose: bool) -> int:
    """Print an error on standard error, under `--verbose` with the traceback, and return exit code 2."""
    if verbose:
        traceback.print_exc()
    # User input may hold line ends, or control characters that affect a terminal.
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in sentence)
    write_last(sys.stderr, f"electra: {shown}\n")
    processes.leave(2, shown)
    return 2


def write_last(stream: TextIO, text: str) -> None:
    """Write to standard output or error; if its reader has gone, keep Python from failing on it at exit."""
    try:
        print(text, end="", file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
