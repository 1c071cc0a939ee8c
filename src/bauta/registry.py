"""One way to register a method: by name, kind and dotted path, imported only when it is used.

Methods are declared in `METHODS` as dotted paths, so that listing them imports nothing. The target of a
path is decorated with `register`, which attaches the card and checks that name and kind agree with the
declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, TypeVar

from bauta.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class MethodCard:
    """What a person wants to know of a method before choosing it.

    Attributes:
        name: The name to ask for, such as ``tip-im``.
        kind: ``cloak`` for photo-side methods, ``purifier`` for what attackers do to photos first, ``attacker`` for
            who trains on protected photos, ``protector`` for what a face service stores.
        summary: One sentence.
        paper: Citation, or "our design".
        target: Dotted path ``package.module:attribute`` of the implementation.
    """

    name: str
    kind: str
    summary: str
    paper: str
    target: str


METHODS: dict[str, MethodCard] = {
    card.name: card
    for card in (
        MethodCard(
            name="tip-im",
            kind="cloak",
            summary="Adversarial identity mask, optimised per photo against an ensemble of surrogates.",
            paper="Yang et al., Towards Face Encryption by Generating Adversarial Identity Masks, ICCV 2021",
            target="bauta.cloaks.tip_im:TipIm",
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
                paper="reference",
                target=f"bauta.templates.references:{target}",
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


def list_methods(pattern: str = "*", *, kind: str | None = None) -> list[MethodCard]:
    """Cards of the registered methods whose name matches the glob `pattern`, in alphabetical order."""
    return [
        METHODS[name]
        for name in sorted(METHODS)
        if fnmatchcase(name, pattern) and (kind is None or METHODS[name].kind == kind)
    ]


def register(name: str, *, kind: str) -> Callable[[T], T]:
    """Mark a class as the implementation of the method declared under `name`.

    Raises:
        UsageError: when `METHODS` declares no such method of that kind.
    """

    def decorate(target: T) -> T:
        card = METHODS.get(name)
        if card is None or card.kind != kind:
            raise UsageError(f"{name!r} is not declared as a {kind}.", hint="Add its card to METHODS.")
        target.card = card  # type: ignore[attr-defined]
        return target

    return decorate


def load_method(name: str, *, kind: str | None = None) -> Any:
    """Import and return the implementation of a method.

    Raises:
        UsageError: when no method of that kind has that name; the message lists those that exist.
    """
    card = METHODS.get(name)
    if card is None or kind not in (None, card.kind):
        there = ", ".join(card.name for card in list_methods(kind=kind))
        raise UsageError(f"No {kind or 'method'} is called {name!r}.", hint=f"There is: {there}.")
    module, _, attribute = card.target.partition(":")
    return getattr(import_module(module), attribute)
