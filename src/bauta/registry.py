"""One way to register a method: by name, kind and dotted path, imported only when it is used.

Methods of ours are declared in `METHODS` as dotted paths, so that listing them imports nothing. The target of a
path is decorated with `register`, which attaches the card and checks that name and kind agree with the
declaration.

Other packages declare theirs as entry points of the group `GROUP`, each leading to a `MethodCard`::

    [project.entry-points."bauta.methods"]
    toy = "bauta_toy:CARD"

A package whose card cannot be had is told of by `problems`; every other method works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from bauta.calls import checked
from bauta.errors import UsageError

T = TypeVar("T")

GROUP = "bauta.methods"
KINDS = ("cloak", "purifier", "attacker", "protector", "cancelable")


@dataclass(frozen=True)
class MethodCard:
    """What a person wants to know of a method before choosing it.

    Attributes:
        name: The name to ask for, such as ``tip-im``.
        kind: ``cloak`` for photo-side methods, ``purifier`` for what attackers do to photos first, ``attacker`` for
            who trains on protected photos, ``protector`` for what a face service stores, ``cancelable`` for what turns
            a template by a token, so that it can be revoked.
        summary: One sentence.
        paper: Citation, or "our design".
        target: Dotted path ``package.module:attribute`` of the implementation.
        reference: Whether it stands in tables for comparison only: nobody is meant to rely on it.
        package: The distribution that brings it; the registry fills it in.

    Raises:
        UsageError: when there is no such kind, or the target is not a dotted path.
    """

    name: str
    kind: str
    summary: str
    paper: str
    target: str
    reference: bool = False
    package: str = "bauta"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"{self.name!r} declares the kind {self.kind!r}.", hint=f"Kinds are {', '.join(KINDS)}.")
        if not all(self.target.partition(":")):
            raise UsageError(
                f"{self.name!r} declares the target {self.target!r}.", hint="Write package.module:attribute."
            )

    @property
    def called(self) -> str:
        """The name, and the package when it is not ours: for messages."""
        return self.name if self.package == "bauta" else f"{self.name} (of the package {self.package})"


DEFAULT_CLOAK = "spatial"
"""The method that photos are protected by when none is named."""

METHODS: dict[str, MethodCard] = {
    card.name: card
    for card in (
        MethodCard(
            name="spatial",
            kind="cloak",
            summary="Mask that moves the face a little and changes its lightness a little, and no colour; the default.",
            paper="our design; moving pixels is the idea of Xiao et al., Spatially Transformed Adversarial Examples, "
            "ICLR 2018",
            target="bauta.cloaks.spatial:Spatial",
        ),
        MethodCard(
            name="p3-mask",
            kind="cloak",
            summary="Mask fitted once to photos of a person, put on each new one at once, taken off with its key.",
            paper="our design after Chow et al., Personalized Privacy Protection Mask Against Unauthorized Facial "
            "Recognition, ECCV 2024 (Chameleon), which the preset chameleon follows",
            target="bauta.cloaks.p3_mask:P3Mask",
        ),
        MethodCard(
            name="watermark",
            kind="cloak",
            summary="The default mask that also carries a short message, which whoever has the key reads.",
            paper="our design after the goal of Double Privacy Guard (DIP-Watermark), arXiv 2404.14693; spread "
            "spectrum after Cox et al., Secure Spread Spectrum Watermarking for Multimedia, IEEE TIP 1997",
            target="bauta.cloaks.watermark:Watermark",
        ),
        MethodCard(
            name="tip-im",
            kind="cloak",
            summary="Adversarial identity mask, optimised per photo against an ensemble of surrogates.",
            paper="Yang et al., Towards Face Encryption by Generating Adversarial Identity Masks, ICCV 2021",
            target="bauta.cloaks.tip_im:TipIm",
        ),
        MethodCard(
            name="makeup",
            kind="cloak",
            summary="Makeup, skin tone, or what a photo wears, chosen so that recognisers fail; a mask is beneath it.",
            paper="our design after Yin et al., Adv-Makeup, IJCAI 2021, and Shamshad et al., Makeup-Guided Facial "
            "Privacy Protection via Untrained Neural Network Priors, 2024",
            target="bauta.cloaks.makeup:Makeup",
        ),
        *(
            MethodCard(
                name=name,
                kind="cloak",
                summary=summary,
                paper=paper,
                target=f"bauta.cloaks.{target}",
                reference=True,
            )
            for name, summary, paper, target in (
                ("clean", "Reference: the photo as it is.", "reference", "distortions:Clean"),
                ("noise", "Reference: Gaussian noise on the face.", "reference", "distortions:Noise"),
                ("blur", "Reference: the face blurred.", "reference", "distortions:Blur"),
                ("pixelate", "Reference: the face as a mosaic.", "reference", "distortions:Pixelate"),
                (
                    "pgd",
                    "Reference: steps by the sign of the gradient, from a random start.",
                    "Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018",
                    "gradient_attacks:Pgd",
                ),
                (
                    "mi-fgsm",
                    "Reference: the same with momentum.",
                    "Dong et al., Boosting Adversarial Attacks with Momentum, CVPR 2018",
                    "gradient_attacks:MiFgsm",
                ),
                (
                    "ti-dim",
                    "Reference: the same on randomly resized crops, with a smoothed gradient.",
                    "Dong et al., Evading Defenses by Translation-Invariant Attacks, CVPR 2019",
                    "gradient_attacks:TiDim",
                ),
            )
        ),
        MethodCard(
            name="purify-blur",
            kind="purifier",
            summary="Gaussian blur of the photo.",
            paper="common practice",
            target="bauta.attacks.purify:BlurPurifier",
        ),
        MethodCard(
            name="purify-jpeg",
            kind="purifier",
            summary="Recompression as JPEG.",
            paper="Dziugaite et al., A study of the effect of JPG compression on adversarial images, 2016",
            target="bauta.attacks.purify:JpegPurifier",
        ),
        MethodCard(
            name="purify-bit-depth",
            kind="purifier",
            summary="Fewer levels of each colour.",
            paper="Xu et al., Feature Squeezing, NDSS 2018",
            target="bauta.attacks.purify:BitDepthPurifier",
        ),
        MethodCard(
            name="purify-total-variation",
            kind="purifier",
            summary="The nearby photo of least total variation.",
            paper="Rudin et al. 1992, Chambolle 2004; as a defence Guo et al., ICLR 2018",
            target="bauta.attacks.purify:TotalVariationPurifier",
        ),
        MethodCard(
            name="purify-denoiser",
            kind="purifier",
            summary="A small network that takes noise away, trained on clean faces.",
            paper="after FFDNet, Zhang et al., TIP 2018",
            target="bauta.attacks.purify:DenoiserPurifier",
        ),
        MethodCard(
            name="fine-tuning",
            kind="attacker",
            summary="A recogniser that goes on learning to tell people apart, on clean and protected photos of others.",
            paper="Radiya-Dixit et al., Data Poisoning Won't Save You From Facial Recognition, ICLR 2022 (FaceCure)",
            target="bauta.attacks.adapt:fine_tune",
        ),
        MethodCard(
            name="embedding-student",
            kind="attacker",
            summary="A network taught to say of protected faces what a recogniser says of the clean ones.",
            paper="FaceLinkGen, as a digest of the paper describes it",
            target="bauta.attacks.link:fit_student",
        ),
        MethodCard(
            name="advface",
            kind="protector",
            summary="Adversarial noise on the stored feature, against decoders that would turn it into a face.",
            paper="Wang et al., Privacy-preserving Adversarial Facial Features, CVPR 2023",
            target="bauta.templates.advface.protector:AdvFace",
        ),
        MethodCard(
            name="local-features",
            kind="protector",
            summary="An image of local detail over random fields that any recogniser reads; learned or train-free.",
            paper="our design after Local Features Meet Stochastic Anonymization, arXiv 2412.08276",
            target="bauta.templates.local.protector:LocalFeatures",
        ),
        *(
            MethodCard(
                name=name,
                kind="protector",
                summary=summary,
                paper=paper,
                target=f"bauta.templates.masked.protectors:{target}",
                reference=name == "unprotected",
            )
            for name, summary, paper, target in (
                (
                    "hybrid-masking",
                    "Masked frequencies of a face, mixed with other faces; a network that learned says how many.",
                    "Adaptive Hybrid Masking against model inversion, arXiv 2403.10558, 2024",
                    "HybridMasking",
                ),
                (
                    "frequency-mixup",
                    "Masked frequencies of a face, mixed with those of a fixed number of other faces.",
                    "baseline of arXiv 2403.10558",
                    "FrequencyMixup",
                ),
                (
                    "ppfr-fd",
                    "Some frequencies of a face, shuffled and mixed channel by channel.",
                    "Wang et al., Privacy-Preserving Face Recognition in the Frequency Domain, AAAI 2022",
                    "PpfrFd",
                ),
                (
                    "dctdp",
                    "Frequencies of a face with Laplace noise whose budget is learned.",
                    "Ji et al., Privacy-Preserving Face Recognition with Learnable Privacy Budgets, ECCV 2022",
                    "Dctdp",
                ),
                (
                    "partialface",
                    "Nine high frequencies of a face, which and in which order drawn for each face.",
                    "Mi et al., Privacy-Preserving Face Recognition Using Random Frequency Components, ICCV 2023",
                    "PartialFace",
                ),
                (
                    "minusface",
                    "What a rendering of the face lacks, its frequencies shuffled for each face.",
                    "Mi et al., Privacy-Preserving Face Recognition Using Trainable Feature Subtraction, CVPR 2024",
                    "MinusFace",
                ),
                (
                    "mixup",
                    "Faces mixed in pixels; with random signs InstaHide.",
                    "Zhang et al., mixup, ICLR 2018; Huang et al., InstaHide, ICML 2020",
                    "PixelMixup",
                ),
                (
                    "gaussian-noise",
                    "Reference: Gaussian noise, and a recogniser trained on it.",
                    "reference",
                    "NoiseRecognition",
                ),
                (
                    "unprotected",
                    "Reference: nothing masked, and a recogniser trained as those of masked faces.",
                    "reference",
                    "Unprotected",
                ),
            )
        ),
        *(
            MethodCard(
                name=name,
                kind="protector",
                summary=summary,
                paper=paper,
                target=f"bauta.templates.released.{target}",
            )
            for name, summary, paper, target in (
                (
                    "peep",
                    "Projections on eigenfaces of other people with Laplace noise; says the epsilon of all together.",
                    "Chamikara et al., Privacy Preserving Face Recognition Utilizing Differential Privacy, "
                    "Computers & Security 2020",
                    "projected:Peep",
                ),
                (
                    "dct-laplace",
                    "The lowest frequencies of a face with Laplace noise; says the epsilon of all together.",
                    "common practice; the plain form of Ji et al., ECCV 2022",
                    "projected:DctLaplace",
                ),
                (
                    "sliced-frequencies",
                    "The lowest frequencies of a face as bits, flipped at random; says the epsilon of all together.",
                    "after LDP-Slicing, arXiv 2603.03711",
                    "projected:SlicedFrequencies",
                ),
                (
                    "dp-pixels",
                    "Means of a face's cells with Laplace noise; says the epsilon of all together.",
                    "Fan, Image Pixelization with Differential Privacy, DBSec 2018",
                    "projected:DpPixels",
                ),
                (
                    "turned-template",
                    "The template turned by a random angle; metric privacy, and the epsilon that it is.",
                    "Weggenmann, Kerschbaum, Differential Privacy for Directional Data, CCS 2021",
                    "others:TurnedTemplate",
                ),
                (
                    "flipped-bits",
                    "The bits of a photo flipped at random; says the epsilon of all together.",
                    "after LDP-Slicing, arXiv 2603.03711",
                    "others:FlippedBits",
                ),
            )
        ),
        *(
            MethodCard(
                name=name,
                kind="cancelable",
                summary=summary,
                paper=paper,
                target=f"bauta.templates.cancelable.{target}",
            )
            for name, summary, paper, target in (
                (
                    "iom-grp",
                    "Template as the places of the largest of random projections; can be revoked; the default.",
                    "Jin et al., Index-of-Max Hashing, TIFS 2018",
                    "iom:IomGrp",
                ),
                (
                    "biohash",
                    "Template as signs of random projections; can be revoked.",
                    "Jin, Ling, Goh, Biohashing, Pattern Recognition 2004",
                    "hashes:BioHash",
                ),
                (
                    "mlp-hash",
                    "Template as signs of the outputs of a random network; can be revoked.",
                    "Shahreza, Hahn, Marcel, MLP-Hash, EUSIPCO 2023",
                    "hashes:MlpHash",
                ),
                (
                    "polyprotect",
                    "Template as polynomials of neighbouring numbers; can be revoked.",
                    "Hahn, Marcel, PolyProtect, T-BIOM 2022",
                    "polyprotect:PolyProtect",
                ),
            )
        ),
        *(
            MethodCard(
                name=name,
                kind="protector",
                summary=summary,
                paper="reference",
                target=f"bauta.templates.references:{target}",
                reference=True,
            )
            for name, summary, target in (
                ("identity-feature", "Reference: the recogniser's own feature, unprotected.", "IdentityFeature"),
                ("constant-image", "Reference: the same grey image for everybody.", "ConstantImage"),
                ("noisy-image", "Reference: Gaussian noise on the stored image.", "NoisyImage"),
                ("blurred-image", "Reference: a blurred image is stored.", "BlurredImage"),
                ("pixelated-image", "Reference: a pixelated image is stored.", "PixelatedImage"),
            )
        ),
    )
}


_SIDES = {
    "cloak": (
        "changes photos; it protects nothing that a face service stores.",
        "Try `bauta protect --method {name}`.",
    ),
    "protector": (
        "protects what a face service stores; it changes no photos.",
        "Try `bauta templates fit --method {name}`, and for photos one of the cloaks of `bauta methods`.",
    ),
}
"""Of the two sides that are taken for each other: what a method of it does, and where it can be used."""


@cache
def _others() -> tuple[dict[str, MethodCard], dict[str, str]]:
    """Cards that other packages bring, and what is wrong with those that they should, both by name."""
    cards: dict[str, MethodCard] = {}
    wrong: dict[str, str] = {}
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else "unknown"
        try:
            card = entry.load()
        except Exception as error:  # whatever a foreign module does when it is imported
            wrong[entry.name] = f"The package {package} cannot be imported: {type(error).__name__}: {error}."
            continue
        if not isinstance(card, MethodCard):
            wrong[entry.name] = f"The package {package} declares {type(card).__name__} instead of a MethodCard."
        elif card.name != entry.name:
            wrong[entry.name] = f"The package {package} declares {entry.name!r}, and its card {card.name!r}."
        elif card.name in METHODS or card.name in cards:
            wrong[entry.name] = f"The package {package} declares {entry.name!r}, a name that is taken."
        else:
            cards[card.name] = replace(card, package=package)
    return cards, wrong


def find_method(name: str) -> MethodCard | None:
    """The card of a method of ours, or of another package; None where there is none."""
    return METHODS.get(name) or _others()[0].get(name)


def problems() -> list[str]:
    """One sentence for each method of another package that cannot be used."""
    return [_others()[1][name] for name in sorted(_others()[1])]


@checked
def list_methods(pattern: str = "*", *, kind: str | None = None) -> list[MethodCard]:
    """Cards of the registered methods whose name matches the glob `pattern`, in alphabetical order."""
    known = METHODS | _others()[0]
    return [
        known[name]
        for name in sorted(known)
        if fnmatchcase(name, pattern) and (kind is None or known[name].kind == kind)
    ]


def register(name: str, *, kind: str) -> Callable[[T], T]:
    """Mark a class as the implementation of the method declared under `name`.

    Raises:
        UsageError: when no such method of that kind is declared.
    """

    def decorate(target: T) -> T:
        card = find_method(name)
        if card is None or card.kind != kind:
            raise UsageError(
                f"{name!r} is not declared as a {kind}.", hint=f"Add its card to METHODS, or an entry point of {GROUP}."
            )
        target.card = card  # type: ignore[attr-defined]
        return target

    return decorate


def load_method(name: str, *, kind: str | None = None, base: type[T] | None = None) -> Any:
    """Import and return the implementation of a method.

    Args:
        name: As registered.
        kind: That it must have.
        base: Class that the implementation must inherit from.

    Raises:
        UsageError: when no method of that kind has that name (the message lists those that exist), or the package that
            brings it cannot be used.
    """
    card = find_method(name)
    if card is None or kind not in (None, card.kind):
        if card is None and name in _others()[1]:
            raise UsageError(_others()[1][name], hint="Correct the package, or remove it.")
        if card is not None and {card.kind, kind} == {"cloak", "protector"}:
            raise UsageError(f"{card.called} {_SIDES[card.kind][0]}", hint=_SIDES[card.kind][1].format(name=name))
        there = ", ".join(card.name for card in list_methods(kind=kind))
        raise UsageError(f"No {kind or 'method'} is called {name!r}.", hint=f"There is: {there}.")
    module, _, attribute = card.target.partition(":")
    try:
        target = getattr(import_module(module), attribute)
    except Exception as error:
        if card.package == "bauta":
            raise
        raise UsageError(
            f"{card.called} cannot be imported: {type(error).__name__}: {error}.",
            hint=f"Install what it needs, or remove {card.package}.",
        ) from error
    if base is not None and not (isinstance(target, type) and issubclass(target, base)):
        raise UsageError(
            f"{card.called} is not a {base.__name__}: it is {target!r}.",
            hint=f"Report it to whoever makes {card.package}.",
        )
    if vars(target).get("card") != card:  # a subclass would show its base's
        target.card = card
    return target
