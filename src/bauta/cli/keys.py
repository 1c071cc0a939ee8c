"""``bauta key``: what seals galleries, takes masks off, and writes and reads watermarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bauta.cli.console import show_facts, show_notes


def key(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the key is written.")] = Path(
        "deployment.key"
    ),
) -> None:
    """Make a key, for a gallery, a watermark or erasable masks: 32 random bytes that only you can read."""
    from bauta.keys import create_key_file

    create_key_file(output)
    show_facts([("key", output)])
    show_notes(
        [
            "whoever has this file opens what it seals: keep it where galleries and photos are not, one for each use.",
            "keep a copy of it too: if it is lost, nothing that is sealed with it can be opened again.",
        ]
    )
