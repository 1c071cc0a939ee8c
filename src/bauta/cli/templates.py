"""``bauta templates fit``, ``protect`` and ``match``: recognise without keeping a face."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bauta.cli.console import ProgressBar, clean, show_facts, show_table
from bauta.cli.values import setting_pairs
from bauta.errors import UsageError

templates_protect = typer.Typer()

Protector = Annotated[
    Path, typer.Argument(help="Folder of a fitted protector, or the name of one that ships.", show_default=False)
]
Key = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE", help="The deployment's key, at least 16 random bytes, such as of `openssl rand 32`."),
]
Aligned = Annotated[bool, typer.Option("--aligned", help="The photos are aligned 112x112 crops.")]


@templates_protect.command()
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


@templates_protect.command()
def protect(
    protector: Protector,
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders, one face each.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Gallery to write, .safetensors.")
    ] = Path("gallery.safetensors"),
    key: Key = None,
    aligned: Aligned = False,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Seed of the noise, for experiments; drawn anew and forgotten by default."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the gallery that is there.")] = False,
) -> None:
    """Enrol the largest face of each photo in protected form."""
    from bauta.templates.base import load_protector
    from bauta.templates.verbs import protect_faces, read_key, require_free

    if output.suffix != ".safetensors":
        raise UsageError(f"{output} is no gallery.", hint="Give -o FILE.safetensors.")
    require_free(output, overwrite=overwrite)
    loaded = load_protector(protector)
    names, images = _faces(photos, aligned)
    secret = None if key is None else read_key(key)
    gallery = protect_faces(loaded, images, names, key=secret, seed=seed)
    gallery.save(output, overwrite=overwrite)
    stored = gallery.representation
    show_facts(
        [
            ("gallery", output),
            ("faces", len(gallery.names)),
            ("kind", f"{stored.kind} {'x'.join(map(str, stored.tensor.shape[1:]))} in {stored.storage}"),
            ("bytes each", stored.bytes_each),
            ("key", stored.key or "none"),
        ]
    )


@templates_protect.command()
def match(
    protector: Protector,
    gallery: Annotated[Path, typer.Argument(help="Gallery of `bauta templates protect`.", show_default=False)],
    probes: Annotated[
        list[Path],
        typer.Argument(help="Photos or folders of visitors, or one gallery of them.", show_default=False),
    ],
    key: Key = None,
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
    from bauta.errors import NotCalibrated
    from bauta.recognizers import calibration
    from bauta.templates.base import load_protector
    from bauta.templates.verbs import Gallery, read_key

    loaded = load_protector(protector)
    stored = Gallery.load(gallery)
    secret = None if key is None else read_key(key)
    if len(probes) == 1 and probes[0].suffix == ".safetensors":
        other = Gallery.load(probes[0])
        names, scores = other.names, loaded.match(stored.representation, other.representation, secret)
    else:
        names, images = _faces(probes, aligned)
        scores = loaded.match_clean(stored.representation, images, secret)
    limit, own = threshold, loaded.thresholds
    if limit is None and own is not None:
        limit = own.get(fmr)
    elif limit is None:
        with suppress(NotCalibrated):
            limit = calibration.threshold(loaded.recognizer.card, fmr).cosine
    if as_json:
        print(
            json.dumps(
                {
                    "gallery": stored.names,
                    "probes": names,
                    "scores": [[round(score, 6) for score in row] for row in scores.T.tolist()],
                    "threshold": limit,
                    "fmr": fmr if threshold is None and limit is not None else None,
                },
                indent=2,
            )
        )
        return
    best, place = scores.max(0)
    decisions = ["" if limit is None else ("yes" if score >= limit else "no") for score in best.tolist()]
    show_table(
        ("PROBE", "NEAREST", "COSINE", "MATCH"),
        [
            (name, stored.names[nearest], f"{score:.3f}", decision)
            for name, nearest, score, decision in zip(names, place.tolist(), best.tolist(), decisions, strict=True)
        ],
    )
    if limit is None and own is not None:
        print(
            f"\nMasked faces have a recogniser of their own, for which no threshold is known at FMR {fmr:g}: measure "
            "one on people of yours, or take that of its result card (thresholds, system), and give --threshold."
        )
    elif limit is None:
        print(f"\nNo threshold is stored for {clean(loaded.recognizer.card.name)}: `bauta recognizers calibrate`.")


def _faces(paths: list[Path], aligned: bool) -> tuple[tuple[str, ...], Any]:
    from bauta.photo.files import find_photos
    from bauta.templates.verbs import names_of_photos, read_faces

    found = find_photos(paths)
    for problem in found.problems:
        raise problem
    return names_of_photos(found.photos), read_faces(found.photos, aligned=aligned)
