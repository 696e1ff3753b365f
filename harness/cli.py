"""The command line's door: parse, call, and the only place that catches HarnessError.

The commands are in harness/commands. Results go to stdout (with --json nothing but one JSON value), progress and
complaints to stderr. Exit codes: 0 done, 1 a bug (with --debug its traceback), 2 something the user can mend,
130 interrupted.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import Any

import typer

from harness.commands import app, goes_on, streams
from harness.contract import threads_left
from harness.errors import HarnessError, did_you_mean
from harness.text import one_line, terminal

SECONDS_FOR_THREADS = 1.0  # that plugins have left behind
COMPLETES = "_HARNESS_COMPLETE"  # set by the shell that asks for completions
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `harness` command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with streams(given, last=arguments is None):
            _main(given)
    except KeyboardInterrupt:  # a second one, while the first was dealt with
        _interrupted(given)
    except SystemExit as ended:
        if arguments is None and threads_left(SECONDS_FOR_THREADS):  # the interpreter would wait for them for ever
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code if isinstance(ended.code, int) else 0)
        raise


def _main(given: list[str]) -> None:
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        code = app(given, standalone_mode=False, prog_name="harness")
    except HarnessError as error:
        if debug:
            raise
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _interrupted(given)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}")
    except Exception as error:
        if line := _usage_line(error):
            _fail(line)
        if debug:
            raise
        print(
            f"harness: {type(error).__name__}: {one_line(error)} (run again with --debug for the traceback)",
            file=sys.stderr,
        )
        sys.exit(1)
    except BaseException as error:  # of a plugin's code that no hook has called: the harness itself raises none
        if debug or COMPLETES in os.environ:  # completion for a shell ends so
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(f"something ended the process ({what}); a plugin returns or raises (--debug shows where)")
    else:
        if code == INTERRUPTED:  # newer typer turns Ctrl-C into an exit of its own, without a word
            _interrupted(given)
        sys.exit(code if isinstance(code, int) else 0)


def _interrupted(given: list[str]) -> None:
    """Say so and exit. By now all that was open is closed; more Ctrl-C change nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hint = "; the same command goes on where it stopped" if goes_on(given) else ""
    print(f"interrupted{hint}", file=sys.stderr)
    sys.stdout.flush()
    # After two interruptions of a join Python 3.11 forgets the thread, which may still compute; an interpreter that is
    # taken down around it aborts.
    atexit.register(os._exit, INTERRUPTED)
    sys.exit(INTERRUPTED)


def _usage_line(error: Any) -> str:
    """One helpful line for a fault of the command line itself; empty for any other exception.

    Newer typer carries its own copy of click and older typer uses the package, so the classes are known by name.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if "UsageError" not in names:
        return ""
    context = error.ctx
    message = error.format_message().splitlines()[0].rstrip(".")
    if "NoSuchOption" in names:
        known = [name for p in context.command.params for name in p.opts if name.startswith("--")] if context else []
        return f"there is no option {error.option_name}; {did_you_mean(error.option_name, known)}"
    if message.startswith("No such command") and context:
        wrong = message.split("'")[1]
        return f"there is no command '{wrong}'; {did_you_mean(wrong, context.command.commands)}"
    return f"{message} (see `{context.command_path if context else 'harness'} --help`)"


def _fail(message: str) -> None:
    first, *more = terminal(message).split("\n")  # a line within a name is none of the harness's own
    print("\n  ".join([f"harness: {first}", *more]), file=sys.stderr)
    sys.exit(2)
