"""What is done to photos: ``bauta protect``, ``fit``, ``restore`` and ``read``; options are the method's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from bauta.cli import values
from bauta.cli.console import ProgressBar, clean, show_error, show_facts, show_outcomes, show_table
from bauta.cli.method_options import named_by, named_first, with_method_options
from bauta.cli.options import EPILOG, Json, Judges, References, Surrogates
from bauta.errors import OutputError, UsageError

if TYPE_CHECKING:
    from bauta.cloaking.settings import ProtectSettings

DEFAULT = "tip-im"

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
    typer.Option(metavar="FILE", help="The secret of a method that needs one.", rich_help_panel="Method"),
]
Strength = Annotated[
    Literal["low", "medium", "high"],
    typer.Option(help="How strong, and so how visible, the mask may be."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="Method")]
Holder = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--method", help="Method that protected it; a fitted file names its own.", show_default=False),
]
Where = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--report",
        metavar="FILE.json",
        help="Report of the protection, which says where the faces were; otherwise they are looked for.",
    ),
]


def protect(
    paths: Annotated[list[Path], typer.Argument(help="Photos, folders or quoted globs.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the protected photos and reports."),
    ] = Path("protected"),
    method: Annotated[str, typer.Option(help="Method; see `bauta methods`.")] = "tip-im",
    strength: Annotated[
        Literal["low", "medium", "high"],
        typer.Option(help="How strong, and so how visible, the mask may be."),
    ] = "medium",
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="Time that one face may take, such as 10s."),
    ] = None,
    only: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Protect only the people in this photo. May be repeated.", rich_help_panel="Which faces"),
    ] = None,
    keep: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            metavar="PHOTO", help="Leave the people in this photo as they are.", rich_help_panel="Which faces"
        ),
    ] = None,
    largest: Annotated[
        bool, typer.Option("--largest", help="Protect the largest face only.", rich_help_panel="Which faces")
    ] = False,
    box: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="X,Y,W,H",
            help="Protect the face in this rectangle only, in pixels; for one that is not found by itself.",
            rich_help_panel="Which faces",
        ),
    ] = None,
    reference: References = None,
    surrogates: Surrogates = None,
    judges: Judges = None,
    fitted: Fitted = None,
    key: Key = None,
    message: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TEXT", help="What a method hides in the face.", rich_help_panel="Method"),
    ] = None,
    like: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(metavar="PHOTO", help="A face that a method goes by.", rich_help_panel="Method"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel="Method")] = 0,
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Keep metadata, GPS too; embedded pictures go.", rich_help_panel="Files"),
    ] = False,
    strip_metadata: Annotated[
        bool,
        typer.Option(
            "--strip-metadata",
            help="Remove all metadata. By default what is known to be harmless stays.",
            rich_help_panel="Files",
        ),
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Photos at a time.", rich_help_panel="Files")] = 1,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write the photos only.", rich_help_panel="Files")
    ] = False,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> int:
    """Protect the faces in photos. Originals are never changed; finished photos are not done again."""
    from bauta.cloaking.settings import ProtectSettings, Selection
    from bauta.photo import MetadataPolicy

    if keep_metadata and strip_metadata:
        raise UsageError("Metadata is either kept or stripped.", hint="Give only one of the two options.")
    policy = MetadataPolicy.PRIVATE
    if keep_metadata or strip_metadata:
        policy = MetadataPolicy.KEEP if keep_metadata else MetadataPolicy.STRIP
    settings = ProtectSettings(
        method=method,
        options=tuple((options or {}).items()),
        strength=strength,
        surrogates=values.names(surrogates),
        judges=values.names(judges),
        seed=seed,
        metadata=policy,
        selection=Selection(
            largest, tuple(only or ()), tuple(keep or ()), tuple(values.box(text) for text in box or ())
        ),
        references=tuple(reference or ()),
        fitted=tuple(fitted or ()),
        key=key,
        message=message,
        like=tuple(like or ()),
        budget=None if budget is None else values.seconds(budget),
    )
    return _protect(paths, output, settings, jobs, not no_report, as_json)


def _protect(
    paths: list[Path], output: Path, settings: ProtectSettings, jobs: int, reports: bool, as_json: bool
) -> int:
    from bauta.cloaking.batch import protect_photos
    from bauta.cloaking.outcomes import Outcome, exit_code
    from bauta.cloaking.places import collect

    sources, failures = collect(paths, output)
    for failure in failures:
        show_error(failure.message, failure.hint)
    if not sources and failures:
        if as_json:
            print(json.dumps([failure.to_dict() for failure in failures], indent=2))
        return exit_code(failures)
    outcomes: list[Outcome] = list(failures)

    def show() -> None:
        if as_json:
            print(json.dumps([outcome.to_dict() for outcome in outcomes], indent=2))
        elif len(outcomes) > len(failures):
            show_outcomes(outcomes, output)

    try:
        with ProgressBar(len(sources)) as bar:

            def finished(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.finished(outcome)

            protect_photos(sources, output, settings, jobs=jobs, reports=reports, finished=finished, progress=bar.stage)
    except KeyboardInterrupt:
        show()
        raise
    show()
    return exit_code(outcomes)


def fit(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Method that learns a person.", show_default=False)],
    photos: Annotated[list[Path], typer.Argument(help="Photos, folders or globs of one person.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; never over a file.", show_default=False),
    ],
    strength: Strength = "medium",
    surrogates: Surrogates = None,
    judges: Judges = None,
    seed: Seed = 0,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> int:
    """Let a method learn a person once; its mask then goes on each new photo at once. Keep the file to yourself."""
    from bauta.cloaking.verbs import fit as learn
    from bauta.cloaking.verbs import require_fitting
    from bauta.photo import find_photos

    require_fitting(method)
    if output.exists():
        raise OutputError(f"{output} exists already.", hint="Choose another name; a file is never replaced.")
    found = find_photos(photos)
    for problem in found.problems:
        raise problem
    with ProgressBar(1) as bar:
        fitted = learn(
            method,
            list(found.photos),
            options=options,
            strength=strength,
            surrogates=values.names(surrogates),
            judges=values.names(judges),
            seed=seed,
            progress=bar.stage,
        )
    fitted.save(output)
    facts = {
        "fitted": str(output),
        "method": fitted.method,
        "photos": len(found.photos),
        "sha256": fitted.sha256,
        "attacked": ", ".join(fitted.teachers),
    }
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        show_facts(list(facts.items()))
    return 0


def restore(
    photos: Annotated[list[Path], typer.Argument(help="Protected photos.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the photos.")] = Path(
        "restored"
    ),
    method: Holder = None,
    fitted: Fitted = None,
    key: Key = None,
    report: Where = None,
) -> int:
    """Take a mask off again, with what its owner holds. Nothing is overwritten."""
    from bauta.cloaking.verbs import restore as undo
    from bauta.files import make_folder

    if report is not None and len(photos) > 1:
        raise UsageError("A report is of one photo.", hint="Restore that photo by itself.")
    landmarks = None if report is None else _landmarks(report)
    make_folder(output)
    for path in photos:
        restored = undo(path, method=method, fitted=tuple(fitted or ()), key=key, landmarks=landmarks)
        restored.save(output / path.with_suffix(restored.suffix).name)
        print(clean(output / path.with_suffix(restored.suffix).name))
    return 0


def read(
    photo: Annotated[Path, typer.Argument(help="A photo, protected or not.", show_default=False)],
    method: Holder = None,
    fitted: Fitted = None,
    key: Key = None,
    report: Where = None,
    as_json: Json = False,
) -> int:
    """Read what a method hid in the faces of a photo."""
    from dataclasses import asdict

    from bauta.cloaking.verbs import read as find

    landmarks = None if report is None else _landmarks(report)
    readings = find(photo, method=method, fitted=tuple(fitted or ()), key=key, landmarks=landmarks)
    if as_json:
        print(json.dumps([asdict(one) for one in readings], indent=2, default=dict))
    else:
        rows = [
            (str(number), "nothing" if one.message is None else one.message, f"{one.chance:.2g}")
            for number, one in enumerate(readings, 1)
        ]
        show_table(("FACE", "SAYS", "BY CHANCE"), rows)
    return 0


def _landmarks(report: Path) -> list[Any]:
    try:
        return [face["landmarks"] for face in json.loads(report.read_text(encoding="utf-8"))["faces"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{report} is not a report of Bauta's.", hint="Give the .report.json of the protected photo."
        ) from error


def register(app: typer.Typer) -> None:
    """Add the commands."""
    with_method_options(app, named_by("--method", DEFAULT), epilog=EPILOG)(protect)
    with_method_options(app, named_first)(fit)
    app.command()(restore)
    app.command()(read)
