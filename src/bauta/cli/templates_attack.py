"""``bauta templates attack`` and ``report``: what attackers get out of what a face service stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bauta.cli import values
from bauta.cli.benchmark import Rows, command_line
from bauta.cli.console import ProgressBar, clean, show_table
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
    from bauta.benchmark.engine.cards import TEMPLATES, read_card
    from bauta.benchmark.stores.recipe import read_template_recipe
    from bauta.benchmark.stores.run import run_template_recipe, with_fitted

    chosen = read_template_recipe(recipe)
    if protector is not None and rows is not None:
        raise UsageError("Rows and a protector cannot be asked for together.", hint="Leave out one of them.")
    if protector is not None:
        chosen = with_fitted(chosen, protector.resolve() if protector.exists() else protector)
    if (names := values.chosen(rows)) is not None:
        chosen = chosen.only(names)
    with ProgressBar(1) as bar:
        written = run_template_recipe(
            chosen, data, output, work=work, examples=examples, command=command_line(), device=device,
            progress=bar.stage,
        )  # fmt: skip
    _show([read_card(path, TEMPLATES) for path in written])
    print()
    for path in written:
        print(clean(path))


@templates_attack.command()
def report(
    cards: Annotated[list[Path], typer.Argument(help="Result cards.", show_default=False)],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="FILE.html", help="Where to write the page; an earlier one is replaced."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables in Markdown.")] = False,
) -> None:
    """Show result cards as one page with what attackers recover, or as tables."""
    from bauta.benchmark.engine.cards import TEMPLATES, read_card
    from bauta.benchmark.stores import page as template_report
    from bauta.files import make_folder, write_atomically

    read = [read_card(path, TEMPLATES) for path in cards]
    if output is not None:
        if output.suffix.lower() not in (".html", ".htm"):  # rather than replace a card by a slip of the hand
            raise UsageError(f"{output} is not an HTML file.", hint="Give -o FILE.html.")
        make_folder(output.parent)
        write_atomically(output, template_report.to_html(read).encode(), overwrite=True)
        print(clean(output))
    if markdown:
        print(template_report.markdown(read))
    elif output is None:
        _show(read)


def _show(cards: list[dict[str, object]]) -> None:
    from bauta.benchmark.stores import page as template_report

    for _, header, rows in template_report.tables(cards):
        show_table(tuple(name.upper() for name in header), rows)
        print()
    for text in template_report.note(cards):
        print(f"Note: {clean(text)}")
