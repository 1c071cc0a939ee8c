"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from bauta.cli import values

EPILOG = (
    "Exit codes: 0 done, no judge that was asked recognises a face; the verdict says whether an independent one "
    "was · 7 weak or partial: a judge still does, or not every face is known to be covered · "
    "8 fragile: a judge does once the photo is saved as JPEG, made smaller or screenshotted · 3 no face found · "
    "4 a photo cannot be read · 5 a result cannot be written · 6 a recogniser cannot be used · "
    "9 a gallery cannot be read · 2 wrong usage · 1 anything else · 130 interrupted. "
    "With several photos the most serious wins: 130, 1, 2, 6, 9, 10, 5, 4, 3, 7, 8, 0."
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
References = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(
        "--reference", metavar="PHOTO", help="Another photo of the person, to judge against. May be repeated."
    ),
]
Surrogates = Annotated[
    Optional[list[str]],  # noqa: UP045
    values.names_option("Recognisers to attack.", default="auto"),
]
Judges = Annotated[
    Optional[list[str]],  # noqa: UP045
    values.names_option("Recognisers that check the result and are never attacked.", default="auto"),
]
Fitted = Annotated[
    Optional[list[Path]],  # noqa: UP045
    typer.Option(
        metavar="FILE",
        help="What the method learned of a person, from `bauta fit`. May be repeated.",
        rich_help_panel="Method",
    ),
]
Key = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        metavar="FILE",
        help="The secret of a method that needs one, or the key that a fitted file, or what was under a mask, is "
        "sealed with.",
        rich_help_panel="Method",
    ),
]
MaskPassphraseFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="File with the passphrase that a fitted file, or what was under a mask, is sealed with.",
        rich_help_panel="Method",
    ),
]
AskMaskPassphrase = Annotated[
    bool,
    typer.Option(
        "--ask-passphrase",
        help="Ask for that passphrase; it is not shown.",
        rich_help_panel="Method",
    ),
]
Strength = Annotated[
    Literal["low", "medium", "high"],
    typer.Option(help="How strong, and so how visible, the mask may be."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="Method")]
