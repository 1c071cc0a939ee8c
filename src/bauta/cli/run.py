"""One place where errors become a line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import typer
from typer.exceptions import Abort, TyperException

from bauta.cli.console import show_error, show_warning
from bauta.errors import BautaError

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

    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="bauta", standalone_mode=False)
        sys.stdout.flush()
    except BautaError as error:
        if _debugging():
            traceback.print_exc()
        show_error(error.message, error.hint)
        return error.exit_code
    except TyperException as error:
        show_error(error.format_message(), "Run the command with --help to see what it takes.")
        return error.exit_code
    except Abort:
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, such as `head`; say nothing when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BautaError.exit_code
    except Exception as error:
        if _debugging():
            raise
        show_error(
            f"{type(error).__name__}: {error}",
            "This is a defect in Bauta; run again with BAUTA_DEBUG=1 and report what it prints.",
        )
        return BautaError.exit_code
    if code == INTERRUPTED:  # Typer's own answer to Ctrl-C
        show_error("interrupted", "What was finished is kept; run the same command again to go on.")
    return code if isinstance(code, int) else 0


def _debugging() -> bool:
    return os.environ.get("BAUTA_DEBUG") == "1"
