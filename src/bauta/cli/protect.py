"""``bauta protect``; the options of a method are made from its settings."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import typer

from bauta.cli import values
from bauta.cli.console import ProgressBar, clean, show_error, show_notes, show_outcomes, show_table
from bauta.cli.method_options import named_by, with_method_options
from bauta.cli.options import (
    EPILOG,
    AskMaskPassphrase,
    Fitted,
    Judges,
    Key,
    MaskPassphraseFile,
    References,
    Seed,
    Strength,
    Surrogates,
)
from bauta.errors import UsageError
from bauta.registry import DEFAULT_CLOAK

if TYPE_CHECKING:
    from bauta.cloaking.outcomes import Outcome
    from bauta.cloaking.rehearsal import Plan
    from bauta.cloaking.settings import ProtectSettings
    from bauta.keys import DeploymentKey

OUTPUT = Path("protected")
STREAM = Path("-")


def _methods(beginning: str) -> list[str]:
    from bauta.registry import list_methods

    return [card.name for card in list_methods(f"{beginning}*", kind="cloak")]


def protect(
    paths: Annotated[
        list[Path], typer.Argument(help="Photos, clips, folders or quoted globs; - for stdin.", show_default=False)
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the protected photos and reports; - writes one photo to stdout.",
            show_default="protected, and stdout for stdin",
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="Method; see `bauta methods`.", autocompletion=_methods)] = DEFAULT_CLOAK,
    strength: Strength = "medium",
    budget: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TIME", help="Time that one face may take, such as 10s."),
    ] = None,
    fallback: Annotated[
        Literal["none", "blur", "pixelate"],
        typer.Option(help="What covers a face that no mask protects."),
    ] = "none",
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
    face: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="N=WHAT",
            help="Protect, blur, pixelate or leave face N of one photo, as --dry-run numbers them.",
            rich_help_panel="Which faces",
        ),
    ] = None,
    others: Annotated[
        Literal["leave", "blur", "pixelate"],
        typer.Option(help="What is done to faces that these options leave out.", rich_help_panel="Which faces"),
    ] = "leave",
    begin: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", metavar="TIME", help="Protect from here on, such as 83s.", rich_help_panel="Clips"),
    ] = None,
    end: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--to", metavar="TIME", help="Protect up to here.", rich_help_panel="Clips"),
    ] = None,
    every: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            metavar="N",
            help="Look for faces in every Nth frame; 1 misses none, and takes longer.",
            show_default="six looks a second; each frame of animated pictures",
            rich_help_panel="Clips",
        ),
    ] = None,
    unlinkable: Annotated[
        bool,
        typer.Option(
            "--unlinkable",
            help="Move protected photos of one person apart, so that fewer match each other; one photo at a time.",
            rich_help_panel="Method",
        ),
    ] = False,
    reference: References = None,
    surrogates: Surrogates = None,
    judges: Judges = None,
    fitted: Fitted = None,
    erasable: Annotated[
        bool,
        typer.Option(
            "--erasable",
            help="Seal what was there before into the file, under --key (made when it is not there) or a passphrase: "
            "`bauta restore` with it takes every mask off.",
            rich_help_panel="Method",
        ),
    ] = False,
    key: Key = None,
    passphrase_file: MaskPassphraseFile = None,
    ask_passphrase: AskMaskPassphrase = False,
    message: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="TEXT", help="What a method hides in the face.", rich_help_panel="Method"),
    ] = None,
    like: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(metavar="PHOTO", help="A face that a method goes by.", rich_help_panel="Method"),
    ] = None,
    seed: Seed = 0,
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
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Make finished photos again and replace files of the same names, originals never; "
            "on stdout, write even a photo that is weak.",
            rich_help_panel="Files",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which faces there are and how long it will take; write nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only; the exit code tells.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what was done to each face.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object on stdout for each photo, each on a line.")
    ] = False,
    options: dict[str, Any] | None = None,
) -> int:
    """Protect the faces in photos and clips. Originals are never changed; finished photos are not done again."""
    from bauta.cloaking.settings import ProtectSettings, Selection
    from bauta.photo import MetadataPolicy

    if keep_metadata and strip_metadata:
        raise UsageError("Metadata is either kept or stripped.", hint="Give only one of the two options.")
    if quiet + verbose + as_json > 1:
        raise UsageError("--quiet, --verbose and --json exclude each other.", hint="Give one of them.")
    own_key, opens, seals = _keys(method, fitted, key, passphrase_file, ask_passphrase, erasable)
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
            largest,
            tuple(only or ()),
            tuple(keep or ()),
            tuple(values.box(text) for text in box or ()),
            tuple(values.face(text) for text in face or ()),
        ),
        fallback=fallback,
        others=others,
        unlinkable=unlinkable,
        references=tuple(reference or ()),
        fitted=tuple(fitted or ()),
        opens=opens,
        erasable=seals,
        key=own_key,
        message=message,
        like=tuple(like or ()),
        budget=None if budget is None else values.seconds(budget),
        span=_span(begin, end),
        every=every,
    )
    if dry_run:
        return _rehearse(paths, output or OUTPUT, settings, quiet, as_json)
    if STREAM in (*paths, output):
        return _stream(paths, output, settings, force=force, quiet=quiet, as_json=as_json)
    folder = output or OUTPUT
    _require_folder(folder)
    return _protect(
        paths, folder, settings, jobs, not no_report, force=force, quiet=quiet, verbose=verbose, as_json=as_json
    )


def _span(begin: str | None, end: str | None) -> tuple[float, float] | None:
    """First and last second of what is protected in clips."""
    if begin is None and end is None:
        return None
    first = 0.0 if begin is None or begin in ("0", "0s") else values.seconds(begin)
    return first, math.inf if end is None else values.seconds(end)


def _keys(
    method: str,
    fitted: Sequence[Path] | None,
    key: Path | None,
    passphrase_file: Path | None,
    ask: bool,
    erasable: bool,
) -> tuple[Path | None, DeploymentKey | None, DeploymentKey | None]:
    """The secret of the method, what opens fitted files, and what seals: --key is each of them that is needed."""
    from bauta.cli.secrets import mask_key, new_mask_key
    from bauta.cloaks.base import load_cloak

    keyed = "key" in load_cloak(method).needs
    if not erasable:
        if not fitted or keyed:
            return key, mask_key(fitted or (), None, passphrase_file, ask), None
        return None, mask_key(fitted, key, passphrase_file, ask), None
    if fitted:
        opens = mask_key(fitted, key, passphrase_file, ask)
        return key if keyed else None, opens, opens or new_mask_key(key, passphrase_file, ask)
    return key if keyed else None, None, new_mask_key(key, passphrase_file, ask)


def _require_folder(output: Path) -> None:
    from bauta.photo.files import is_photo_name

    if is_photo_name(output.name) and not output.exists():
        raise UsageError(
            f"-o names a folder, and {output} looks like a photo.",
            hint=f"Give a folder; the photo keeps its name there. For a file, use `-o - > {output.name}`.",
        )


def _protect(
    paths: Sequence[Path],
    output: Path,
    settings: ProtectSettings,
    jobs: int,
    reports: bool,
    *,
    force: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    from bauta.cloaking.batch import protect_photos
    from bauta.cloaking.outcomes import exit_code
    from bauta.cloaking.places import collect

    sources, failures = collect(paths, output)
    for failure in failures:
        show_error(failure.message, failure.hint)
        if as_json:
            _print_json(failure)
    if not sources and failures:
        return exit_code(failures)
    outcomes: list[Outcome] = list(failures)
    try:
        with ProgressBar(len(sources), quiet=quiet) as bar:

            def finished(outcome: Outcome) -> None:
                outcomes.append(outcome)
                bar.finished(outcome)
                if as_json:
                    _print_json(outcome)

            protect_photos(
                sources,
                output,
                settings,
                jobs=jobs,
                reports=reports,
                force=force,
                finished=finished,
                progress=bar.stage,
            )
    finally:  # also when the user interrupts
        if not (quiet or as_json) and len(outcomes) > len(failures):
            show_outcomes(outcomes, output, verbose=verbose)
    return exit_code(outcomes)


def _print_json(outcome: Outcome | Plan) -> None:
    print(json.dumps(outcome.to_dict()), flush=True)


def _stream(
    paths: Sequence[Path], output: Path | None, settings: ProtectSettings, *, force: bool, quiet: bool, as_json: bool
) -> int:
    """One photo from stdin or a file, to stdout. One that is weak or partial is kept back."""
    from bauta.cloaking.outcomes import WEAK, verdict_code
    from bauta.photo import read_photo

    if len(paths) > 1 or output not in (None, STREAM):
        raise UsageError(
            "Only one photo can go through stdin or stdout.", hint="Try `bauta protect - < in.jpg > out.jpg`."
        )
    if as_json:
        raise UsageError("The photo itself goes to stdout, where --json would print.", hint="Leave --json out.")
    if sys.stdout.isatty():
        raise UsageError("A photo is not written to a terminal.", hint="Send it to a file: > out.jpg.")
    photo = read_photo(sys.stdin.buffer.read() if paths[0] == STREAM else paths[0])
    from bauta.cloaking.pipeline import Pipeline

    pipeline = Pipeline(settings)
    pipeline.prepare()
    with ProgressBar(1, quiet=quiet) as bar:
        report = pipeline.protect(photo, progress=bar.stage)
    code = verdict_code(report.verdict)
    if not quiet:
        print(f"{report.verdict.capitalize()}: {clean(report.summary)}", file=sys.stderr)
        show_notes(report.warnings, file=sys.stderr)
    if code == WEAK and not force:
        show_error(
            f"Nothing was written: the photo is {report.verdict}.",
            "Give --fallback blur, or --force to have it all the same.",
        )
    else:
        sys.stdout.buffer.write(report.content or b"")
    return code


def _rehearse(paths: Sequence[Path], output: Path, settings: ProtectSettings, quiet: bool, as_json: bool) -> int:
    """Which faces there are, what would be done to them, and about how long that takes."""
    from bauta.cloaking.outcomes import exit_code
    from bauta.cloaking.places import collect
    from bauta.cloaking.rehearsal import Plan, rehearse

    if STREAM in paths:
        raise UsageError("A dry run reads photos from files.", hint="Name the photo.")
    sources, failures = collect(paths, output)
    outcomes = list(failures)
    for failure in failures:
        show_error(failure.message, failure.hint)
        if as_json:
            _print_json(Plan(failure.source, failure=failure))
    rows, seconds, photos = [], 0.0, 0
    with ProgressBar(len(sources), quiet=quiet) as bar:
        for plan in rehearse([source for source, _ in sources], settings, progress=bar.stage):
            if as_json:
                _print_json(plan)
            if plan.failure is not None:
                outcomes.append(plan.failure)
                show_error(plan.failure.message, plan.failure.hint)
                continue
            photos, seconds = photos + 1, seconds + plan.seconds
            rows += [(plan.source.name, face.name, face.size, face.treatment) for face in plan.faces]
    if not (quiet or as_json) and rows:
        show_table(("PHOTO", "FACE", "PIXELS", "WHAT WOULD BE DONE"), rows)
        print()
        print(
            f"{photos} photo{'' if photos == 1 else 's'}, {len(rows)} face{'' if len(rows) == 1 else 's'}: "
            f"about {_duration(seconds)} if each first mask is enough. Nothing was written."
        )
    return exit_code(outcomes)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} minutes"
        if seconds < 7200
        else f"{seconds / 3600:.1f} hours"
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    with_method_options(app, named_by("--method", DEFAULT_CLOAK), epilog=EPILOG)(protect)
