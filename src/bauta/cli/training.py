"""``bauta train``: for those who make recognisers, not for those who use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bauta.cli.console import ProgressBar

train = typer.Typer(no_args_is_help=True, help="Train what ships with Bauta. Needs the extra `bauta\\[train]`.")


@train.callback()
def _root() -> None:
    pass


@train.command()
def recognizer(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe that the package carries, or a TOML file.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with the recipe's sources.", show_default=False)],
    work: Annotated[
        Path, typer.Option(metavar="DIR", help="Packed faces, embeddings, checkpoints; run again, it goes on there.")
    ] = Path("out/training"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the weights and the card are written.")
    ] = Path("out/recognizers"),
    threads: Annotated[int, typer.Option(help="Threads of computation.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes that prepare batches.")] = 0,
) -> None:
    """Train a face recogniser by a recipe. Interrupted, it goes on where it stopped."""
    from bauta.training.recipes import read_recipe
    from bauta.training.recognizer import train_recognizer

    with ProgressBar(1) as bar:
        card = train_recognizer(
            read_recipe(recipe), data, work, output, threads=threads, workers=workers, progress=bar.stage
        )
    print(f"{card.weights} {card.sha256}")
