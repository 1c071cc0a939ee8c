"""One place where errors become a line on stderr, an exit code and, where JSON is asked for, an object on stdout."""

from __future__ import annotations

import difflib
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer
from typer.exceptions import Abort, TyperException

from bauta.cli.console import show_error, show_warning
from bauta.errors import BautaError, UsageError, as_bauta_error

INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """Run a command line, without the program's name, and return its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(arguments)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Ours on a line of their own; those of libraries as Python writes them, with the place in the code."""
    if issubclass(category, RuntimeWarning):
        show_warning(str(message))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, *place[:2]))


def _run(arguments: Sequence[str]) -> int:
    from bauta.cli.app import app

    _print_anything()
    arguments, command = _hoisted(arguments), typer.main.get_command(app)
    defaults: dict[str, Any] = {}  # of options, which the command fills in

    def fail(error: BautaError) -> int:
        return _fail(error, as_json="--json" in arguments or _json_by_default(command, arguments, defaults))

    try:
        code = command.main(arguments, prog_name="bauta", standalone_mode=False, obj=defaults)
        sys.stdout.flush()
    except BautaError as error:
        if _debugging():
            traceback.print_exc()
        return fail(error)
    except TyperException as error:
        return fail(_wrong_usage(error))
    except Abort:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, such as `head`; say nothing when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BautaError.exit_code
    except Exception as error:
        if _debugging():
            raise
        return fail(as_bauta_error(error))
    if code == INTERRUPTED:  # Typer's own answer to Ctrl-C
        show_error("interrupted", "What was finished is kept; run the same command again to go on.")
    return code if isinstance(code, int) else 0


def _hoisted(arguments: Sequence[str]) -> list[str]:
    """The command line with ``--config FILE`` before the command, wherever it was typed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for place, text in enumerate(arguments[:end]):
        if text == "--config" or text.startswith("--config="):
            behind = place + (2 if text == "--config" else 1)
            return [*arguments[place:behind], *arguments[:place], *arguments[behind:]]
    return list(arguments)


def _wrong_usage(error: TyperException) -> UsageError:
    """What Typer says of a command line, with the one option that was probably meant."""
    hint = "Run the command with --help to see what it takes."
    name = getattr(error, "option_name", None)
    if name is None or not hasattr(error, "possibilities"):  # Typer does not export the class
        return UsageError(error.format_message().replace("Value error, ", ""), hint=hint)
    near = difflib.get_close_matches(name, error.possibilities or (), 1, cutoff=0.5)
    if name == "--method":
        hint = "A fitted protector says which method it is; `bauta templates fit --method NAME` makes one."
    return UsageError(f"There is no option {name} here.", hint=f"Did you mean {near[0]}?" if near else hint)


def _json_by_default(group: Any, arguments: Sequence[str], defaults: Any) -> bool:
    """Whether a file or the environment asks for JSON of the command that is typed."""
    for word in arguments:
        if word in getattr(group, "commands", {}):
            group, defaults = group.commands[word], defaults.get(word, {})
    value = defaults.get("as_json", False)
    return value if isinstance(value, bool) else str(value).lower() in ("1", "true", "t", "yes", "y", "on")


def _fail(error: BautaError, *, as_json: bool) -> int:
    show_error(error.message, error.hint)
    if as_json:
        told = {"code": error.code, "exit_code": error.exit_code, "message": error.message, "hint": error.hint}
        print(json.dumps({"error": told}))
    return error.exit_code


def _print_anything() -> None:
    """Let names that a console cannot show become replacement characters instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _debugging() -> bool:
    return os.environ.get("BAUTA_DEBUG") == "1"
