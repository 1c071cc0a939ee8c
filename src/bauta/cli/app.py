"""The commands: parse, call, show. What is heavy is imported inside them, so that ``--help`` is instant."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bauta.cli import certify, configuration, photos, protect, values
from bauta.cli.benchmark import bench
from bauta.cli.console import ProgressBar, clean, show_error, show_facts, show_note, show_report, show_table
from bauta.cli.doctor import doctor
from bauta.cli.encrypted import encrypted
from bauta.cli.galleries import galleries
from bauta.cli.keys import key
from bauta.cli.methods import show_method
from bauta.cli.options import EPILOG, Json, Judges, References
from bauta.cli.people import gallery
from bauta.cli.serve import serve
from bauta.cli.templates import templates_fit
from bauta.cli.templates_attack import templates_attack
from bauta.cli.training import train
from bauta.cli.web import web
from bauta.errors import OutputExists, UsageError
from bauta.progress import steps_of
from bauta.version import __version__

if TYPE_CHECKING:
    from bauta.recognizers.calibration import Threshold
    from bauta.recognizers.cards import RecognizerCard

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Protect faces in photos from recognition, and check honestly whether it worked.",
    epilog=EPILOG,
)
recognizers = typer.Typer(no_args_is_help=True, help="The face recognisers that are attacked and that judge.")
app.add_typer(recognizers, name="recognizers")
app.add_typer(bench, name="bench")
app.add_typer(train, name="train")
templates = typer.Typer(no_args_is_help=True, help="Recognise without keeping a face.")
templates.add_typer(templates_fit)
templates.add_typer(galleries)
templates.add_typer(templates_attack)
app.add_typer(templates, name="templates")
app.add_typer(encrypted, name="encrypted")
app.add_typer(gallery, name="gallery")


def _version(asked: bool) -> None:
    if asked:
        print(f"bauta {__version__}")
        raise typer.Exit


_WELCOME = """\
Bauta protects faces in photos from recognition, and checks honestly whether it worked.

  bauta demo                        see what it does, on a portrait in the public domain
  bauta web                         the same and more in a browser page; nothing leaves this machine
  bauta protect photo.jpg -o out    protect a photo, or a folder of photos
  bauta verify ORIGINAL PROTECTED   check a protected photo
  bauta doctor                      check this installation
  bauta --help                      every command"""


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE.toml",
            envvar="BAUTA_CONFIG",
            help="Defaults of options, instead of bauta.toml in your configuration folder.",
        ),
    ] = None,
) -> None:
    if context.invoked_subcommand is None:
        print(_WELCOME)
        raise typer.Exit
    context.default_map = configuration.defaults(context.command, config, os.environ)
    if context.obj is not None:
        context.obj.update(context.default_map)
    if config is None and Path(configuration.NAME).is_file():
        show_note(f"{configuration.NAME} in this folder is not used; name it with --config to use it.")


protect.register(app)
photos.register(app)
certify.register(app)
app.command()(web)
app.command()(serve)
app.command()(key)
app.command()(doctor)


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write; replaced when run again.")
    ] = Path("out/demo"),
) -> None:
    """Protect a portrait in the public domain and show what came of it."""
    from bauta.cloaking.demo import demonstrate

    with ProgressBar(1) as bar:
        report, files = demonstrate(output, progress=bar.stage)
    show_report(report)
    print()
    for path in files:
        print(clean(path))
    print("\nTo do this to your own photos in a browser page: bauta web")


@app.command(epilog=EPILOG)
def verify(
    original: Annotated[Path, typer.Argument(help="The photo before protection.", show_default=False)],
    protected: Annotated[
        Path, typer.Argument(help="The photo after it, possibly resized or re-encoded.", show_default=False)
    ],
    reference: References = None,
    surrogates: Annotated[
        Optional[list[str]],  # noqa: UP045
        values.names_option("Recognisers that the mask was made against; they confirm nothing.", default="auto"),
    ] = None,
    judges: Judges = None,
    report: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.html", help="Write the report here, and its data beside it as .json."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Check a protected photo against its original."""
    from bauta.cloaking.outcomes import verdict_code
    from bauta.cloaking.report_files import write_report
    from bauta.cloaking.verbs import verify as judge

    with ProgressBar(1) as bar:
        answer = judge(
            original,
            protected,
            references=tuple(reference or ()),
            surrogates=values.names(surrogates),
            judges=values.names(judges),
            progress=bar.stage,
        )
    if report is not None:
        write_report(answer, report, like=original)
    if as_json:
        print(answer.to_json(), end="")
    else:
        show_report(answer)
    return verdict_code(answer.verdict)


@app.command()
def methods(
    pattern: Annotated[
        str, typer.Argument(metavar="NAME", help="One method, shown with its options, or a glob that names must match.")
    ] = "*",
    as_json: Json = False,
) -> None:
    """List the protection methods and the attackers they are tested with, or show all there is to know of one."""
    from dataclasses import asdict

    from bauta.registry import list_methods, problems

    cards = list_methods(pattern)
    for problem in problems():
        show_error(problem, "Correct the package, or remove it; the other methods work.")
    if [card.name for card in cards] == [pattern]:
        show_method(pattern, as_json)
    elif as_json:
        print(json.dumps([asdict(card) for card in cards], indent=2))
    else:
        show_table(("METHOD", "KIND", "WHAT IT DOES", "FROM"), [(c.name, c.kind, c.summary, c.paper) for c in cards])


@recognizers.command("list")
def list_(as_json: Json = False) -> None:
    """List the recognisers on this machine: what they may do, and whether they are ready."""
    from bauta.recognizers.catalog import SHIPPED, list_missing, list_recognizers

    cards = [(card, _thresholds(card), card.weights.is_file()) for card in list_recognizers()]
    if as_json:
        entries = [
            {
                "name": card.name,
                "roles": sorted(card.roles),
                "architecture": card.architecture,
                "training_set": card.training_set,
                "terms": card.terms,
                "source": card.source,
                "sha256": card.sha256,
                "format": card.format,
                "weights_present": present,
                "thresholds": {f"{limit.fmr:g}": limit.cosine for limit in found},
                "training": dict(card.training),
            }
            for card, found, present in cards
        ]
        absent = [
            {"name": card.name, "roles": sorted(card.roles), "weights_present": False, "install": error.hint}
            for card, error in list_missing()
        ]
        print(json.dumps(entries + absent, indent=2))
        return
    rows = [
        (
            card.name,
            ", ".join(sorted(card.roles, reverse=True)),
            "yes" if found else "no",
            "MISSING" if not present else "shipped" if card.weights.parent == SHIPPED else "here",
            card.architecture,
            card.terms,
        )
        for card, found, present in cards
    ]
    rows += [
        (
            card.name,
            ", ".join(sorted(card.roles, reverse=True)),
            "yes" if _thresholds(card) else "no",
            f"not installed: {error.hint}",
            card.architecture,
            card.terms,
        )
        for card, error in list_missing()
    ]
    show_table(("RECOGNISER", "ROLES", "CALIBRATED", "WEIGHTS", "NETWORK", "TERMS"), rows)


def _thresholds(card: RecognizerCard) -> list[Threshold]:
    """Those that are stored, highest FMR first."""
    from bauta.errors import NotCalibrated
    from bauta.rates import FMRS
    from bauta.recognizers.calibration import threshold

    found = []
    for fmr in FMRS:
        try:
            found.append(threshold(card, fmr))
        except NotCalibrated:
            continue
    return found


@recognizers.command()
def show(name: Annotated[str, typer.Argument(help="A recogniser; see `bauta recognizers list`.")]) -> None:
    """Show all that is known about one recogniser: what it reads, its training, thresholds, terms."""
    from bauta.recognizers.catalog import find_card

    card = find_card(name)
    crop = card.template
    normalisation = [" ".join(f"{value:.6g}" for value in values) for values in (card.mean, card.std)]
    show_facts(
        [
            ("Recogniser", card.name),
            ("Roles", ", ".join(sorted(card.roles, reverse=True))),
            ("Network", card.architecture),
            ("Reads", f"{card.colour} crops of {crop.width}x{crop.height} pixels, template {crop.name}"),
            ("Normalised", f"(pixels in 0..1 - {normalisation[0]}) / {normalisation[1]}"),
            ("Answers", f"{card.dim} numbers"),
            ("Trained on", card.training_set),
            ("Terms", card.terms),
            ("Source", card.source),
            *([("Address", card.url)] if card.url else []),
            ("Weights", f"{card.weights}{'' if card.weights.is_file() else ' (MISSING)'}"),
            ("Format", card.format),
            ("SHA-256", card.sha256),
        ]
    )
    if card.training:
        print("\nTraining")
        show_facts(
            [
                (f"  {key}", ", ".join(map(str, value)) if isinstance(value, tuple) else value)
                for key, value in card.training.items()
            ]
        )
    print()
    limits = _thresholds(card)
    if not limits:
        print(f"Not calibrated. Before it can judge: bauta recognizers calibrate {card.name} FOLDER")
        return
    show_table(
        ("FMR", "COSINE", "IMPOSTOR PAIRS", "PEOPLE"),
        [(f"{t.fmr:g}", f"{t.cosine:.4f}", f"{t.impostor_pairs:,}", f"{t.people:,}") for t in limits],
    )
    origin = limits[0]  # one calibration gives all
    print(f"Calibrated on {clean(origin.calibration_set)} ({origin.date}), SHA-256 {clean(origin.calibration_sha256)}")


@recognizers.command("diversity")
def diversity_(
    folder: Annotated[Path, typer.Argument(help="A folder for each person, with aligned crops of 112x112 pixels.")],
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        values.names_option("Recognisers to choose from.", default="all that are here"),
    ] = None,
    team: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--team", help="Members of a team, 2, 3 and 4 by default. May be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which recognisers fail on different faces: the team to attack with a mask that is fitted once."""
    from dataclasses import asdict

    from bauta.benchmark.diversity import diversity
    from bauta.recognizers.catalog import find_card, list_recognizers

    pool = values.chosen(names) if names else None
    cards = [find_card(name) for name in pool] if pool else [c for c in list_recognizers() if c.weights.is_file()]
    sizes = team or [size for size in (2, 3, 4) if size <= len(cards)] or [2]
    with ProgressBar(1) as bar:
        found = diversity(cards, folder, sizes=sizes, progress=bar.stage)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    show_table(("RECOGNISER", "FAILS"), [(name, f"{n} of {found.probes}") for name, n in found.failures.items()])
    print()
    rows = [(", ".join(t.members), "none fails" if t.diversity is None else f"{t.diversity:.3f}") for t in found.teams]
    show_table(("TEAM", "FOCAL DIVERSITY"), rows[:10])


@recognizers.command()
def export(
    name: Annotated[str, typer.Argument(help="A recogniser; see `bauta recognizers list`.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE.onnx", help="Where to write; never over a file.", show_default=False
        ),
    ],
) -> None:
    """Write a recogniser as one ONNX file, which any ONNX runtime can run."""
    from bauta.files import write_atomically
    from bauta.recognizers.catalog import find_card
    from bauta.recognizers.packed import read_model

    card = find_card(name)
    try:
        write_atomically(output, read_model(card))
    except OutputExists as error:
        raise OutputExists(error.message, hint="Choose another name; a file is never replaced.") from error
    print(f"Wrote {clean(output)}. Its terms: {clean(card.terms)}")


@recognizers.command()
def add(
    model: Annotated[Path, typer.Argument(help="The network, in ONNX.", show_default=False)],
    card: Annotated[Path, typer.Option(metavar="FILE.toml", help="Its card.", show_default=False)],
) -> None:
    """Add your own recogniser. It is checked, and copied to where Bauta keeps its data."""
    from bauta.recognizers.add import add_recognizer

    _here(add_recognizer(model, card))


@recognizers.command()
def pull(
    card: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            metavar="NAME|FILE.toml|URL",
            help="What to fetch, by name, or a card of your own; without it, the names there are.",
            show_default=False,
        ),
    ] = None,
    mirror: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="URL",
            help="Fetch the weights from this folder, or an address with {file}, {name} or {sha256} in it, instead.",
        ),
    ] = None,
    source: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", metavar="FILE", help="The weights, fetched by other means."),
    ] = None,
) -> None:
    """Fetch a recogniser and add it. Interrupted downloads go on; size and SHA-256 are checked."""
    from bauta.recognizers.add import pull as fetch

    if card is None:
        if mirror is not None or source is not None:
            raise UsageError("No recogniser is named.", hint="`bauta recognizers pull` shows the names.")
        _show_pullable()
        return
    with ProgressBar(1) as bar:
        stored = fetch(
            card,
            mirror=mirror,
            file=source,
            progress=lambda done, total: bar.stage("fetching, kB", done // 1000, max(done, total) // 1000),
        )
    _here(stored)


def _show_pullable() -> None:
    from bauta.recognizers.catalog import list_pullable, list_recognizers

    here = {card.sha256 for card in list_recognizers() if card.weights.is_file()}
    rows = [
        (
            card.name,
            ", ".join(sorted(card.roles, reverse=True)),
            f"{card.size / 1e6:.1f} MB" if card.size else "unknown",
            "yes" if card.sha256 in here else "no",
            card.architecture,
            card.terms,
        )
        for card in list_pullable()
    ]
    show_table(("RECOGNISER", "ROLES", "SIZE", "HERE", "NETWORK", "TERMS"), rows)


def _here(card: RecognizerCard) -> None:
    """What can be done with a recogniser that was added, or was there."""
    roles = " and ".join(sorted(card.roles, reverse=True))
    print(f"{card.name} is here as {roles}. Its terms: {clean(card.terms)}")
    if limits := _thresholds(card):
        print(f"Its thresholds were calibrated on {clean(limits[0].calibration_set)}.")
    else:
        print(f"Before it can judge it needs thresholds: bauta recognizers calibrate {card.name} FOLDER")


@recognizers.command()
def calibrate(
    which: Annotated[str, typer.Argument(metavar="NAMES", help="Recognisers, separated by commas, or all.")],
    folder: Annotated[Path, typer.Argument(help="A folder for each person, with aligned crops of 112x112 pixels.")],
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What to call this set of faces; the folder's name by default."),
    ] = None,
    exclude: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="A text file with people to leave out: a name a line, or LFW's pairs.txt."),
    ] = None,
) -> None:
    """Measure decision thresholds on pairs of different people, at FMR 1e-2, 1e-3 and 1e-4."""
    from bauta.data.people import excluded_names
    from bauta.recognizers.calibration import calibrate as measure
    from bauta.recognizers.catalog import find_card, list_recognizers

    named = None if which == "all" else values.chosen([which])
    here = [card for card in list_recognizers() if card.weights.is_file()]
    cards = here if named is None else [find_card(one) for one in named]
    left_out = excluded_names([exclude] if exclude else [])
    rows = []
    with ProgressBar(1) as bar:
        for card in cards:
            found = measure(
                card,
                folder,
                name=name,
                exclude=left_out,
                progress=steps_of(bar.stage, card.name),
            )
            rows += [
                (card.name, f"{t.fmr:g}", f"{t.cosine:.4f}", f"{t.impostor_pairs:,}", str(t.people)) for t in found
            ]
    show_table(("RECOGNISER", "FMR", "COSINE", "IMPOSTOR PAIRS", "PEOPLE"), rows)
