"""``bauta templates protect``, ``match``, ``rotate`` and ``upgrade``: sealed galleries and their keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bauta.cli.console import clean, show_facts, show_notes, show_table
from bauta.cli.secrets import AskNewPassphrase, AskPassphrase, NewKey, NewPassphraseFile, PassphraseFile, gallery_key

if TYPE_CHECKING:
    from bauta.gallery.enrol import Gallery

galleries = typer.Typer()

Protector = Annotated[
    Path, typer.Argument(help="Folder of a fitted protector, or the name of one that ships.", show_default=False)
]
SealedGallery = Annotated[Path, typer.Argument(help="Gallery of `bauta templates protect`.", show_default=False)]
Key = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="Key that seals the gallery, of `bauta key`."),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Gallery to write, sealed.")]
Aligned = Annotated[bool, typer.Option("--aligned", help="The photos are aligned 112x112 crops.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the gallery that is there.")]


@galleries.command()
def protect(
    protector: Protector,
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders, one face each.", show_default=False)],
    output: Output = Path("gallery.bauta"),
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    aligned: Aligned = False,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Seed of the noise, for experiments; drawn anew and forgotten by default."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Enrol the largest face of each photo in protected form, in a gallery that is sealed with a key."""
    from bauta.gallery.enrol import enrol_faces
    from bauta.gallery.files import require_free, write_gallery
    from bauta.templates.base import load_protector

    secret = gallery_key(key, passphrase_file, ask_passphrase, new=True)
    require_free(output, overwrite=overwrite)
    loaded = load_protector(protector)
    names, images = _faces(photos, aligned)
    made = enrol_faces(loaded, images, names, seed=seed)
    key_id = write_gallery(output, made, secret, overwrite=overwrite)
    _show(output, made, key_id)


@galleries.command()
def match(
    protector: Protector,
    gallery: SealedGallery,
    probes: Annotated[
        list[Path],
        typer.Argument(help="Photos or folders of visitors, or one gallery of them.", show_default=False),
    ],
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    aligned: Aligned = False,
    fmr: Annotated[float, typer.Option(help="False match rate of the decision: 1e-2, 1e-3 or 1e-4.")] = 1e-3,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            min=-1.0, max=1.0, metavar="COSINE", help="Decide from this cosine on, instead of the recogniser's."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON on stdout.")] = False,
) -> None:
    """Compare visitors with a gallery: unprotected photos (one-sided) or another gallery (two-sided)."""
    from bauta.gallery.files import is_gallery, read_gallery
    from bauta.gallery.match import Matcher
    from bauta.templates.base import load_protector

    secret = gallery_key(key, passphrase_file, ask_passphrase)
    stored = read_gallery(gallery, secret)
    matcher = Matcher(load_protector(protector), fmr=fmr, threshold=threshold)
    if len(probes) == 1 and is_gallery(probes[0]):
        found = matcher.compare_galleries(stored, read_gallery(probes[0], secret))
    else:
        names, images = _faces(probes, aligned)
        found = matcher.compare(stored, images, names)
    if as_json:
        print(
            json.dumps(
                {
                    "gallery": found.gallery,
                    "probes": found.probes,
                    "scores": [[round(score, 6) for score in row] for row in found.scores.T.tolist()],
                    "threshold": found.threshold,
                    "fmr": found.fmr,
                },
                indent=2,
            )
        )
        return
    words = {None: "", True: "yes", False: "no"}
    show_table(
        ("PROBE", "NEAREST", "COSINE", "MATCH"),
        [(one.probe, one.nearest, f"{one.cosine:.3f}", words[one.match]) for one in found.decisions()],
    )
    if found.threshold is None and matcher.protector.thresholds is not None:
        print(
            f"\nMasked faces have a recogniser of their own, for which no threshold is known at FMR {fmr:g}: measure "
            "one on people of yours, or take that of its result card (thresholds, system), and give --threshold."
        )
    elif found.threshold is None:
        name = clean(matcher.protector.recognizer.card.name)
        print(f"\nNo threshold is stored for {name}: `bauta recognizers calibrate`.")


@galleries.command()
def rotate(
    gallery: SealedGallery,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    new_key: NewKey = None,
    new_passphrase_file: NewPassphraseFile = None,
    ask_new_passphrase: AskNewPassphrase = False,
) -> None:
    """Seal a gallery with another key, in place. No one has to be enrolled again."""
    from bauta.gallery.files import rotate_gallery

    old = gallery_key(key, passphrase_file, ask_passphrase)
    new = gallery_key(new_key, new_passphrase_file, ask_new_passphrase, new=True, prefix="new-")
    key_id = rotate_gallery(gallery, old, new)
    show_facts([("gallery", gallery), ("key id", key_id)])
    show_notes(["copies of the gallery from before still open with the old key: destroy it once no gallery needs it."])


@galleries.command()
def upgrade(
    old: Annotated[
        Path,
        typer.Argument(metavar="OLD", help="Gallery from before they were sealed, .safetensors.", show_default=False),
    ],
    output: Output = Path("gallery.bauta"),
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    old_key: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="The key it was locked with, if it was."),
    ] = None,
    protector: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="DIR", help="The protector that made it; only with --old-key."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Seal a gallery that was written before galleries were sealed."""
    from bauta.gallery.files import require_free, write_gallery
    from bauta.gallery.upgrade import names_beside, read_unsealed
    from bauta.templates.base import load_protector

    secret = gallery_key(key, passphrase_file, ask_passphrase, new=True)
    require_free(output, overwrite=overwrite)
    maker = None if protector is None or old_key is None else load_protector(protector)
    made = read_unsealed(old, protector=maker, old_key=old_key)
    key_id = write_gallery(output, made, secret, overwrite=overwrite)
    _show(output, made, key_id)
    beside = names_beside(old)
    show_notes(
        [
            f"{old} was not authenticated: whoever could write it could exchange faces and names, and nothing can tell "
            "now. If anybody could, enrol the faces again, from photos.",
            f"{old}{f' and {beside} are' if beside.exists() else ' is'} still there, not sealed: try the new gallery, "
            "then delete the old one, and its copies.",
        ]
    )


def _show(path: Path, gallery: Gallery, key_id: str) -> None:
    stored = gallery.representation
    show_facts(
        [
            ("gallery", path),
            ("faces", len(gallery)),
            ("kind", f"{stored.kind} {'x'.join(map(str, stored.tensor.shape[1:]))} in {stored.storage}"),
            ("bytes each", stored.bytes_each),
            ("key id", key_id),
        ]
    )


def _faces(paths: list[Path], aligned: bool) -> tuple[tuple[str, ...], Any]:
    from bauta.gallery.enrol import names_of_photos, read_faces
    from bauta.photo.files import find_photos

    found = find_photos(paths)
    for problem in found.problems:
        raise problem
    return names_of_photos(found.photos), read_faces(found.photos, aligned=aligned)
