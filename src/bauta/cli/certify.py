"""``bauta certify``: whether photos show one person, and how large a change the answer stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bauta.cli.console import ProgressBar
from bauta.cli.options import Json
from bauta.errors import UsageError

if TYPE_CHECKING:
    from bauta.certify.verbs import Certified, CertifiedGallery

NOT_CERTIFIED = 7
_EPILOG = (
    "Exit codes: 0 the answer, yes or no, is certified as far as was asked · 7 it is not: no answer, or a smaller "
    "radius · 2 wrong usage, too few copies among it · 3 no face found · 4 a photo cannot be read, or its face is too "
    "poor · 6 the recogniser cannot be used · 1 anything else · 130 interrupted."
)

_OF_MASKS = (
    "A mask of 8/255 on each value is up to {mask:.2f} long: no radius here says anything of masks, nor of a photo "
    "that is turned, relit or another one."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EPILOG)(certify)


def certify(
    probe: Annotated[Path, typer.Argument(metavar="A", help="The photo that is compared.", show_default=False)],
    references: Annotated[
        list[Path],
        typer.Argument(
            metavar="B...",
            help="Another photo, of who it is compared with; or one of each of several.",
            show_default=False,
        ),
    ],
    sigma: Annotated[
        float, typer.Option(help="Noise on each value of the aligned crop, which are from 0 to 1.")
    ] = 0.12,
    n: Annotated[int, typer.Option("--n", help="Noisy copies of A.")] = 1000,
    alpha: Annotated[
        float, typer.Option(help="Greatest probability that a certificate is wrong, of all together.")
    ] = 1e-3,
    radius: Annotated[float, typer.Option(help="Radius that is asked for; 0 takes any.")] = 0.0,
    enrolment: Annotated[
        int, typer.Option(help="Noisy copies of B, whose mean is compared with; 0 takes B as it is.")
    ] = 0,
    recognizer: Annotated[str, typer.Option(help="Which recogniser answers; a surrogate.")] = "mobilefacenet",
    fmr: Annotated[float, typer.Option(help="False match rate of its threshold.")] = 1e-3,
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Seed of the noise, to repeat an answer; drawn anew by default."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Say whether A shows the person of B, and how large a change of A this answer stands."""
    from bauta.certify.bounds import Smoothing
    from bauta.certify.verbs import certify_gallery

    names = [str(path) for path in references]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{repeated[0]} is given twice.", hint="Give each photo once.")
    with ProgressBar(1) as bar:
        gallery = certify_gallery(
            probe, dict(zip(names, references, strict=True)), settings=Smoothing(sigma, n, alpha, enrolment),
            recognizer=recognizer, fmr=fmr, radius=radius, seed=seed, progress=bar.stage,
        )  # fmt: skip
    answers = list(gallery.answers.values())
    if as_json:
        print(json.dumps((answers[0] if len(answers) == 1 else gallery).to_dict(), indent=2))
    else:
        print("\n".join(told(answers[0], radius) if len(answers) == 1 else told_of_all(gallery, radius)))
    open_ones = [one for one in answers if one.certificate.decision == "abstained" or one.certificate.radius < radius]
    return NOT_CERTIFIED if open_ones else 0


def told_of_all(gallery: CertifiedGallery, asked: float = 0.0) -> list[str]:
    """The answers of a gallery in words, a line each."""
    words = {"accepted": "ACCEPTED", "rejected": "REJECTED", "abstained": "NO ANSWER"}
    first = next(iter(gallery.answers.values()))
    settings = first.settings
    heads = {
        "accepted": "ACCEPTED as one of them or more",
        "rejected": f"REJECTED by all {len(gallery.answers)}, certified within {gallery.radius:.3f}",
        "abstained": "NO ANSWER: none is accepted, and the copies do not tell yes from no of all",
    }
    lines = [heads[gallery.decision], ""]
    for name, one in gallery.answers.items():
        found = one.certificate
        within = f" within {found.radius:.3f}" if found.radius else ""
        short = ", less than was asked for" if found.decision != "abstained" and found.radius < asked else ""
        lines.append(
            f"{words[found.decision]}{within}{short}  {name}: {found.accepted} of {settings.n} copies, cosine "
            f"{one.cosine:.3f} without noise"
        )
    lines += [
        "",
        f"By {first.recognizer} with noise of {settings.sigma:g} on each value of A, threshold {first.threshold:.3f} "
        f"at an FMR of {first.fmr:g} for each comparison.",
        f"No change of A's aligned crop that is shorter than {gallery.radius:.3f} turns any of these answers."
        if gallery.radius
        else "One of them is open, so no change of A is small enough to leave all answers as they are.",
        f"(All of them hold together but with a probability of at most {settings.alpha * len(gallery.answers):g}: each "
        f"has an alpha of {settings.alpha:.2g}.)",
        _OF_MASKS.format(mask=first.mask),
    ]
    if settings.enrolment:
        lines.append(f"Each was enrolled as the mean of {settings.enrolment} noisy copies, which count apart.")
    return lines


def told(found: Certified, asked: float = 0.0) -> list[str]:
    """An answer in words, a line each."""
    one, settings = found.certificate, found.settings
    heads = {
        "accepted": f"ACCEPTED, certified within {one.radius:.3f}",
        "rejected": f"REJECTED, certified within {one.radius:.3f}",
        "abstained": "NO ANSWER: the copies do not tell yes from no",
    }
    lines = [
        heads[one.decision],
        "",
        f"{found.recognizer} accepts {one.accepted} of {settings.n} copies of A with noise of {settings.sigma:g} on "
        "each value.",
    ]
    if one.decision == "abstained":
        lines.append(
            f"At alpha {settings.alpha:g} the probability of acceptance is between {one.low:.3f} and {one.high:.3f}; "
            "more copies tell more."
        )
    else:
        lines += [
            f"No change of A's aligned crop that is shorter than {one.radius:.3f} turns this answer of the majority.",
            f"(L2 length over its 112x112x3 values from 0 to 1; the certificate is wrong with a probability of at most "
            f"{settings.alpha:g}.)",
        ]
        if one.radius < asked:
            lines.append(f"That is less than the {asked:g} asked for.")
    plain = "accepts" if found.cosine >= found.threshold else "rejects"
    lines += [
        "",
        f"Without noise it {plain} A: cosine {found.cosine:.3f}, threshold {found.threshold:.3f} at an FMR of "
        f"{found.fmr:g}. That is not certified.",
        _OF_MASKS.format(mask=found.mask),
    ]
    if settings.enrolment:
        lines.append(f"B was enrolled as the mean of {settings.enrolment} noisy copies, which count apart.")
    return lines
