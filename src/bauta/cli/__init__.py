"""The command line. Exit codes are those of `bauta.errors`, 7 and 8 for photos that a judge recognises."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from bauta.cli.run import run

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code; being asked to end is an interruption too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
