"""``bauta templates attack`` and ``report``: what attackers get out of what a face service stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bauta.cli import values
from bauta.cli.benchmark import Rows, report, run_table
from bauta.errors import UsageError

templates_attack = typer.Typer()


@templates_attack.command()
def attack(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe that the package carries, or a TOML file.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the recipe's sets.", show_default=False)],
    protector: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Attack this fitted protector instead of the recipe's rows."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the result cards.")] = Path(
        "out/templates"
    ),
    rows: Rows = None,
    work: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="What was computed; run again, it goes on there. OUTPUT/.work by default."),
    ] = None,
    examples: Annotated[int, typer.Option(help="Of how many victims each card keeps pictures.")] = 6,
    device: Annotated[str, typer.Option(help="Where protectors and attackers compute: cpu, or cuda.")] = "cpu",
) -> None:
    """Verify, recover, replay and link: a result card for each row. Interrupted, it goes on where it stopped."""
    from bauta.benchmark.stores.run import StoreKind, with_fitted

    kind = StoreKind()
    chosen = kind.read(recipe)
    if protector is not None and rows is not None:
        raise UsageError("Rows and a protector cannot be asked for together.", hint="Leave out one of them.")
    if protector is not None:
        chosen = with_fitted(chosen, protector.resolve() if protector.exists() else protector)
    if (names := values.chosen(rows)) is not None:
        chosen = chosen.only(names)
    run_table(kind, chosen, output, data=data, work=work, examples=examples, device=device)


templates_attack.command(name="report")(report)
