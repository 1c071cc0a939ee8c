"""``bauta bench``: run benchmarks, show and compare their result cards."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bauta.cli import values
from bauta.cli.console import ProgressBar, clean, show_table
from bauta.errors import UsageError

if TYPE_CHECKING:
    from bauta.benchmark.engine.cards import Card
    from bauta.benchmark.engine.run import Kind
    from bauta.benchmark.engine.table import Family

bench = typer.Typer(no_args_is_help=True, help="Measure protection against recognisers that were not attacked.")

Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the result cards.")]
Work = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="DIR", help="Finished batches; run again, it goes on there. OUTPUT/.work by default."),
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Processes; figures do not depend on it.")]
LpipsFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--lpips", metavar="FILE", help="Weights of LPIPS on AlexNet (safetensors), to measure it too."),
]
Rows = Annotated[
    Optional[list[str]],  # noqa: UP045
    values.names_option("Rows to run.", default="all"),
]
Examples = Annotated[int, typer.Option(help="Of how many faces each card keeps pictures.")]
Cards = Annotated[list[Path], typer.Argument(help="Result cards.", show_default=False)]


@bench.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe that the package carries, or a TOML file.", show_default=False)
    ],
    data: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Folder of the recipe's data set."),
    ] = None,
    output: Output = Path("out/bench"),
    rows: Rows = None,
    pairs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Run on this many pairs only, the first ones."),
    ] = None,
    work: Work = None,
    jobs: Jobs = 1,
    examples: Examples = 0,
    lpips: LpipsFile = None,
) -> None:
    """Run a recipe: a result card for each row. Interrupted, it goes on where it stopped."""
    from dataclasses import replace

    from bauta.benchmark.photos.run import PhotoKind

    kind = PhotoKind()
    chosen = _with_rows(kind, recipe, rows)
    if pairs is not None:
        chosen = replace(chosen, pairs=pairs)
    run_table(kind, chosen, output, data=data, work=work, jobs=jobs, examples=examples, lpips=lpips)


@bench.command()
def adaptive(
    recipe: Annotated[
        str, typer.Argument(help="Name of an adaptive recipe that the package carries, or a TOML file.")
    ] = "lfw",
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the recipe's sets.", show_default=False)] = ...,  # type: ignore[assignment]
    output: Output = Path("out/bench"),
    rows: Rows = None,
    work: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="DIR", help="Masks and trained attackers; run again, it goes on. OUTPUT/.work by default."
        ),
    ] = None,
) -> None:
    """Measure methods against attackers who purify photos, or train on protected ones of other people."""
    from bauta.benchmark.adaptive.run import AdaptiveKind

    kind = AdaptiveKind()
    run_table(kind, _with_rows(kind, recipe, rows), output, data=data, work=work)


@bench.command()
def folder(
    originals: Annotated[Path, typer.Argument(help="Folder of the photos before protection.", show_default=False)],
    outputs: Annotated[
        Path, typer.Argument(help="Folder of the same photos protected, under the same names.", show_default=False)
    ],
    references: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="Other photos of the people, PERSON/photo.jpg or PERSON.jpg."),
    ] = None,
    judges: Annotated[
        Optional[list[str]],  # noqa: UP045
        values.names_option("Recognisers that judge.", default="all that are calibrated"),
    ] = None,
    surrogates: Annotated[
        Optional[list[str]],  # noqa: UP045
        values.names_option("Recognisers that the outputs were made against, as far as you know."),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call the method.")] = "",
    output: Output = Path("out/bench"),
    work: Work = None,
    jobs: Jobs = 1,
    examples: Examples = 0,
    lpips: LpipsFile = None,
) -> None:
    """Measure photos that were protected elsewhere, by any tool."""
    from bauta.benchmark.photos.folders import FolderKind, FolderRecipe

    called = name or outputs.resolve().name
    if not called or set(called) & set("/\\") or called.startswith("."):
        raise UsageError(f"A method cannot be called {called!r}.", hint="Give --name; it names a file.")
    named, attacked = values.chosen(judges), values.chosen(surrogates)
    if surrogates is not None and attacked is None:
        raise UsageError("What the outputs were made against is not known here.", hint="Name the --surrogates.")
    recipe = FolderRecipe(
        originals, outputs, named or _calibrated(), references=references, surrogates=attacked or (), method=called
    )
    run_table(FolderKind(), recipe, output, work=work, jobs=jobs, examples=examples, lpips=lpips)


@bench.command()
def recognizers(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with lfw_112, and cfp_112 for FF and FP.")],
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        values.names_option("Recognisers to measure.", "--recognizers", default="all that are here"),
    ] = None,
    protocols: Annotated[
        Optional[list[str]],  # noqa: UP045
        values.names_option("Of lfw, FF and FP, or .bin files of pairs in DATA.", default="lfw"),
    ] = None,
    output: Output = Path("out/bench"),
) -> None:
    """Measure how well recognisers recognise clean faces: LFW and CFP, with the time over bare forward passes."""
    from bauta.benchmark.recognition import RecognizersKind, RecognizersRecipe
    from bauta.recognizers import list_recognizers

    chosen = values.chosen(names) or tuple(card.name for card in list_recognizers() if card.weights.is_file())
    recipe = RecognizersRecipe(chosen, values.chosen(protocols) or ("lfw",))
    run_table(RecognizersKind(), recipe, output, data=data)


@bench.command()
def cancelable(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with cfp_112.", show_default=False)],
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe of cancelable templates, or a TOML file.")
    ] = "cancelable",
    output: Output = Path("out/bench"),
    rows: Rows = None,
    work: Work = None,
) -> None:
    """Measure cancelable templates with tokens secret and stolen: recognition, linkage, renewal, inversion."""
    from bauta.benchmark.cancelable.run import CancelableKind

    kind = CancelableKind()
    run_table(kind, _with_rows(kind, recipe, rows), output, data=data, work=work)


@bench.command()
def budgets(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with cfp_112.", show_default=False)],
    recipe: Annotated[str, typer.Argument(help="Name of a recipe of budgets, or a TOML file.")] = "budgets",
    output: Output = Path("out/bench"),
    rows: Rows = None,
    work: Work = None,
) -> None:
    """Measure noise of differential privacy: recognition by total epsilon, what is computed back, audits."""
    from bauta.benchmark.budgets.run import BudgetKind

    kind = BudgetKind()
    run_table(kind, _with_rows(kind, recipe, rows), output, data=data, work=work)


@bench.command()
def certify(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder with lfw_112 and cfp_112.", show_default=False)],
    recipe: Annotated[str, typer.Argument(help="Name of a recipe of certified answers, or a TOML file.")] = "certify",
    output: Output = Path("out/bench"),
    rows: Rows = None,
    work: Work = None,
) -> None:
    """Measure how far recognisers under noise are sure of pairs of faces, with certificates."""
    from bauta.benchmark.certified.run import CertifiedKind

    kind = CertifiedKind()
    run_table(kind, _with_rows(kind, recipe, rows), output, data=data, work=work)


@bench.command()
def encrypted(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe of encrypted matching, or a TOML file.")
    ] = "encrypted",
    output: Output = Path("out/bench"),
    rows: Rows = None,
) -> None:
    """Measure encrypted matching: whether its decisions are those in the clear, and what they cost."""
    from bauta.benchmark.encrypted.run import EncryptedKind

    kind = EncryptedKind()
    run_table(kind, _with_rows(kind, recipe, rows), output)


@bench.command()
def video(
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder with lfw_photos_250 and lfw_112.", show_default=False)
    ],
    recipe: Annotated[str, typer.Argument(help="Name of a recipe of clips, or a TOML file.")] = "video",
    output: Output = Path("out/bench"),
    rows: Rows = None,
    work: Work = None,
) -> None:
    """Measure clips: what the best frame gives an attacker, flicker, and time. Interrupted, it goes on."""
    from bauta.benchmark.video.run import VideoKind

    kind = VideoKind()
    run_table(kind, _with_rows(kind, recipe, rows), output, data=data, work=work)


@bench.command()
def report(
    cards: Cards,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output", "-o", metavar="FILE.html", help="Where to write the page; an earlier one is replaced."
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
) -> None:
    """Show result cards of one kind as one page that needs nothing else, or as tables."""
    from bauta.benchmark.engine.table import markdown as as_markdown
    from bauta.benchmark.families import read_cards
    from bauta.files import make_folder, write_atomically

    family, read = read_cards(cards)
    if output is not None:
        if output.suffix.lower() not in (".html", ".htm"):  # rather than replace a card by a slip of the hand
            raise UsageError(f"{output} is not an HTML file.", hint="Give -o FILE.html.")
        make_folder(output.parent)
        write_atomically(output, family.page(read).encode(), overwrite=True)
        print(clean(output))
    if markdown:
        print(as_markdown(family.tables(read), family.notes(read)))
    elif output is None:
        _show(family, read)


@bench.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A result card.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")] = False,
) -> None:
    """Compare two result cards of one kind pair by pair: second less first, with 95 % intervals."""
    from dataclasses import asdict

    from bauta.benchmark.families import read_cards

    family, read = read_cards([first, second])
    found = family.compare(*read)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return
    show_table(
        ("FIGURE", "PAIRS", "FIRST", "SECOND", "DIFFERENCE", "95 % INTERVAL", ""),
        [
            (
                one.name,
                str(one.pairs),
                f"{one.first:.3f}",
                f"{one.second:.3f}",
                f"{one.difference.mean:+.3f}",
                f"{one.difference.low:+.3f} to {one.difference.high:+.3f}",
                "equal" if one.equal else "" if one.decided else "not told apart",
            )
            for one in found
        ],
    )


def command_line() -> str:
    """The command line as it was given; where files lie on this machine stays here."""
    return shlex.join(["bauta", *(Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:])])


def _calibrated() -> tuple[str, ...]:
    from bauta.errors import NotCalibrated
    from bauta.recognizers import list_recognizers, threshold

    found = []
    for card in list_recognizers():
        if "judge" not in card.roles or not card.weights.is_file():
            continue
        try:
            threshold(card, 1e-2)
        except NotCalibrated:
            continue
        found.append(card.name)
    if not found:
        raise NotCalibrated("No calibrated judge is there.", hint="Run `bauta recognizers calibrate`.")
    return tuple(found)


def _with_rows(kind: Kind[Any, Any], recipe: str, rows: list[str] | None) -> Any:
    """A recipe with the rows that were asked for."""
    read, names = kind.read(recipe), values.chosen(rows)
    return read if names is None else read.only(names)


def run_table(kind: Kind[Any, Any], recipe: Any, output: Path, **options: Any) -> None:
    """Run a recipe, with the fields of a `Job` as options, and show its tables and where its cards are."""
    from bauta.benchmark.engine.cards import read_card
    from bauta.benchmark.engine.run import Job
    from bauta.benchmark.engine.run import run as run_rows

    with ProgressBar(1) as bar:
        written = run_rows(kind, recipe, Job(output, **options, command=command_line(), progress=bar.stage))
    _show(kind, [read_card(path, kind.record) for path in written])
    print()
    for path in written:
        print(clean(path))


def _show(family: Family, cards: list[Card]) -> None:
    for place, table in enumerate(family.glance(cards)):
        if place:
            print(f"\n{table.title}")
        show_table(tuple(name.upper() for name in table.header), table.rows)
    for text in family.notes(cards):
        print(f"\nNote: {clean(text)}")
