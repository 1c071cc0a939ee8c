"""``bauta fit``, ``restore`` and ``read``: what methods do beside protecting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bauta.cli import values
from bauta.cli.console import ProgressBar, clean, show_facts, show_notes, show_table
from bauta.cli.method_options import named_first, with_method_options
from bauta.cli.options import AskMaskPassphrase, Fitted, Json, Judges, Key, MaskPassphraseFile, Strength, Surrogates
from bauta.errors import OutputError, UsageError

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
    key: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Key that the file is sealed with; made when it is not there."),
    ] = None,
    passphrase_file: MaskPassphraseFile = None,
    ask_passphrase: AskMaskPassphrase = False,
    renew: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="FILE",
            help="Replace this mask by another one of the same person, with its settings, sealed with the same key; "
            "photos that carry the old one are restored with the old file.",
        ),
    ] = None,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Seed of everything random but secrets; drawn anew by default."),
    ] = None,
    as_json: Json = False,
    options: dict[str, Any] | None = None,
) -> int:
    """Let a method learn a person once; its mask then goes on each new photo at once. Keep the file to yourself."""
    from bauta.cli.secrets import mask_key, new_mask_key
    from bauta.cloaking.fitting import fit as learn
    from bauta.cloaking.fitting import require_fitting
    from bauta.learning.fitted import Fitted as FittedFile
    from bauta.photo import find_photos

    made = require_fitting(method)
    if output.exists():
        raise OutputError(f"{output} exists already.", hint="Choose another name; a file is never replaced.")
    found = find_photos(photos)
    for problem in found.problems:
        raise problem
    opens, before = None, None
    if renew is not None:
        opens = mask_key([renew], key, passphrase_file, ask_passphrase)
        before = FittedFile.load(renew, method=method, version=made.version, key=opens)
    elif made.sealed or key is not None or passphrase_file is not None or ask_passphrase:
        opens = new_mask_key(key, passphrase_file, ask_passphrase)
    with ProgressBar(1) as bar:
        fitted = learn(
            method,
            list(found.photos),
            options=options,
            strength=strength,
            surrogates=values.names(surrogates),
            judges=values.names(judges),
            renew=before,
            seed=seed,
            progress=bar.stage,
        )
    fitted.save(output, key=opens)
    held = dict(fitted.provenance.training)
    facts = {
        "fitted": str(output),
        "method": fitted.method,
        "photos": len(found.photos),
        "sha256": fitted.sha256,
        "attacked": ", ".join(fitted.teachers),
        "kept aside": _kept_aside(held),
    }
    if as_json:
        print(json.dumps(facts | {"held": held}, indent=2))
    else:
        show_facts(list(facts.items()))
        if opens is not None:
            show_notes([_KEEP])
    return 0


_KEEP = (
    "whoever has this file and what opens it can take the mask off your photos: keep both to yourself, and a copy of "
    "each. Never publish a photo both with and without the mask."
)


def _kept_aside(held: Mapping[str, object]) -> str:
    """How well the mask holds on photos that it was not fitted to, in a few words."""
    if not held.get("compared"):
        return "no photos: with six or more, some are kept aside to see how well the mask holds"
    return (
        f"{held['kept_aside']} photos: independent judges match {held['matched']} of {held['compared']} pairs with the "
        f"mask, {held['matched_bare']} without"
    )


def restore(
    photos: Annotated[list[Path], typer.Argument(help="Protected photos.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the photos.")] = Path(
        "restored"
    ),
    method: Holder = None,
    fitted: Fitted = None,
    key: Key = None,
    passphrase_file: MaskPassphraseFile = None,
    ask_passphrase: AskMaskPassphrase = False,
    report: Where = None,
) -> int:
    """Take a mask off again, with what its owner holds. Nothing is overwritten."""
    from bauta.cli.secrets import mask_key
    from bauta.cloaking.verbs import restore as undo
    from bauta.files import make_folder
    from bauta.photo.attachment import attached

    if report is not None and len(photos) > 1:
        raise UsageError("A report is of one photo.", hint="Restore that photo by itself.")
    landmarks = None if report is None else _landmarks(report)
    held = tuple(fitted or ())
    sealed = bool(held) or method is None
    opens = mask_key(held, key if sealed else None, passphrase_file, ask_passphrase)
    if opens is None and sealed and not held:
        raise UsageError(
            "Neither a key nor a fitted file is given.",
            hint="Give --key FILE or --ask-passphrase for a photo that was made with --erasable, or --fitted FILE.",
        )
    own = None if sealed else key
    for path in photos:
        restored = undo(path, method=method, fitted=held, key=own, landmarks=landmarks, opens=opens)
        if held and landmarks is None and not attached(path.read_bytes()):
            show_notes([f"{clean(path)} does not say which masks it has; they were looked for, and came off about."])
        make_folder(output)  # not before there is something to put into it
        restored.save(output / path.with_suffix(restored.suffix).name)
        print(clean(output / path.with_suffix(restored.suffix).name))
    return 0


def read(
    photo: Annotated[Path, typer.Argument(help="A photo, protected or not.", show_default=False)],
    method: Holder = None,
    fitted: Fitted = None,
    key: Key = None,
    passphrase_file: MaskPassphraseFile = None,
    ask_passphrase: AskMaskPassphrase = False,
    report: Where = None,
    as_json: Json = False,
) -> int:
    """Read what a method hid in the faces of a photo."""
    from dataclasses import asdict

    from bauta.cli.secrets import mask_key
    from bauta.cloaking.verbs import read as find

    landmarks = None if report is None else _landmarks(report)
    held = tuple(fitted or ())
    opens = mask_key(held, key if held else None, passphrase_file, ask_passphrase)
    own = key if opens is None else None
    readings = find(photo, method=method, fitted=held, key=own, landmarks=landmarks, opens=opens)
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
            f"{report} is not one of Bauta's reports.", hint="Give the .report.json of the protected photo."
        ) from error


def register(app: typer.Typer) -> None:
    """Add the commands."""
    with_method_options(app, named_first)(fit)
    app.command()(restore)
    app.command()(read)
