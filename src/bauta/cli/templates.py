"""``bauta templates fit``: a protector for a recogniser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bauta.cli.console import ProgressBar, show_facts
from bauta.cli.values import setting_pairs

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
            settings=setting_pairs(setting or []),
            device=device,
            progress=bar.stage,
        )
    show_facts([("protector", output), ("sha256", protector.sha256)])
