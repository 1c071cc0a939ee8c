"""``bauta templates fit``: a protector for a recogniser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bauta.cli.console import ProgressBar, show_facts
from bauta.errors import UsageError

templates_fit = typer.Typer()


@templates_fit.command()
def fit(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Folders PERSON/image of aligned 112x112 faces to learn from.", show_default=False),
    ],
    recognizer: Annotated[str, typer.Option(help="The recogniser whose store is protected.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the protector is written.")],
    method: Annotated[str, typer.Option(help="Method; see `bauta methods`.")] = "advface",
    exclude: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(metavar="FILE", help="A list of people to leave out, or LFW's pairs. May be repeated."),
    ] = None,
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method. May be repeated."),
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Images of a person at most.")] = 24,
    licence: Annotated[str, typer.Option(help="Terms of what is learned, for its card.")] = "not stated",
    work: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Checkpoints; run again, it goes on there. OUTPUT/.work by default."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: cpu, or cuda.")] = "cpu",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the protector that is there.")] = False,
) -> None:
    """Fit a protector to a recogniser. Interrupted, it goes on where it stopped."""
    from bauta.training.protectors import fit_protector

    with ProgressBar(1) as bar:
        protector = fit_protector(
            method,
            recognizer,
            sources,
            output,
            exclude=exclude or (),
            each=each,
            seed=seed,
            licence=licence,
            work=work,
            overwrite=overwrite,
            settings=settings(setting or []),
            device=device,
            progress=bar.stage,
        )
    show_facts([("protector", output), ("sha256", protector.sha256)])


def settings(texts: list[str]) -> dict[str, Any]:
    """Settings from NAME=VALUE; a value is JSON where it can be read so, or text; commas separate a list of text.

    Raises:
        UsageError: when one has another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"{text!r} is no setting.", hint="Write --set epsilon=0.5.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value.split(",") if "," in value else value
    return found
