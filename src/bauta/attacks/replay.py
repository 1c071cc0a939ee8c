"""What a recovered face is worth: how like the original it looks, and whether it opens the door.

Replay is measured as in the template-inversion line since NbNet (Mai et al. 2018): *type I* compares the recovered
face with the enrolled image, *type II* with another image of that person. Judges run in ONNX Runtime or dlib; the
recogniser under attack is asked the same way. Faces are aligned crops, and no detector is asked whether it finds one,
which favours the attacker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bauta import metrics
from bauta.errors import UsageError
from bauta.faces.crops import retemplate_pixels
from bauta.recognizers.cards import ROLES, RecognizerCard
from bauta.recognizers.judges import Judge, load_judge

Floats = NDArray[np.float32]

_BATCH = 32


def load_evaluator(card: RecognizerCard) -> Judge:
    """A recogniser that only evaluates, whatever its card allows: replay at the recogniser under attack needs it so.

    Raises:
        RecognizerError: when it cannot be used.
    """
    return load_judge(replace(card, roles=ROLES))


def embed_aligned(judge: Judge, images: Floats) -> Floats:
    """(N, D) unit-norm embeddings of ArcFace crops (N, 3, 112, 112) in [0, 1], carried to the judge's own template.

    Raises:
        NumericalFailure: when the network answers with no numbers.
    """
    parts = []
    for start in range(0, len(images), _BATCH):
        pixels = images[start : start + _BATCH].transpose(0, 2, 3, 1)
        parts.append(judge.embed(retemplate_pixels(pixels, judge.card.template)))
    return np.concatenate(parts) if parts else np.empty((0, judge.card.dim), np.float32)


@dataclass(frozen=True, eq=False)
class Victims:
    """Faces whose representations leaked.

    Attributes:
        enrolled: (N, 3, 112, 112) float32 in [0, 1], of which representations were made.
        others: The same shape, another image of each person.
        subjects: The person of each.

    Raises:
        UsageError: when the fields do not go together.
    """

    enrolled: Tensor
    others: Tensor
    subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.enrolled.shape != self.others.shape or len(self.subjects) != len(self.enrolled) or not self.subjects:
            raise UsageError(
                f"{list(self.enrolled.shape)} enrolled and {list(self.others.shape)} other images of "
                f"{len(self.subjects)} people are not enough to attack.",
                hint="Give two images of each person.",
            )

    def __len__(self) -> int:
        """How many there are."""
        return len(self.subjects)


@dataclass(frozen=True, eq=False)
class ReplayScores:
    """Cosines of recovered faces by a recogniser.

    Attributes:
        first: (N,) with the enrolled image, type I.
        second: (N,) with another image of the person, type II.
    """

    first: Floats
    second: Floats


class Replay:
    """Asks recognisers whether recovered faces are taken for the victims.

    Args:
        victims: Whose faces were recovered.
        judges: Recognisers by name.
    """

    def __init__(self, victims: Victims, judges: dict[str, Judge]) -> None:
        self.victims, self.judges = victims, judges
        self._known = {
            name: (embed_aligned(judge, victims.enrolled.numpy()), embed_aligned(judge, victims.others.numpy()))
            for name, judge in judges.items()
        }

    def scores(self, recovered: Tensor) -> dict[str, ReplayScores]:
        """What each judge says of recovered faces (N, 3, 112, 112) in [0, 1], in the order of the victims.

        Raises:
            UsageError: when their number is another.
        """
        if recovered.shape != self.victims.enrolled.shape:
            raise UsageError(
                f"{list(recovered.shape)} recovered faces are not those of {len(self.victims)} victims.",
                hint="Give one for each.",
            )
        found = {}
        for name, judge in self.judges.items():
            own = embed_aligned(judge, recovered.numpy())
            first, second = (np.einsum("nd,nd->n", own, known) for known in self._known[name])
            found[name] = ReplayScores(first, second)
        return found

    def self_scores(self, name: str) -> Floats:
        """(N,) cosines of the enrolled images with the other ones: what the person themselves would reach."""
        first, second = self._known[name]
        cosines: Floats = np.einsum("nd,nd->n", first, second)
        return cosines


@dataclass(frozen=True, eq=False)
class Likeness:
    """How like the originals recovered images look, each (N,).

    Attributes:
        mse: Mean squared error on [0, 1].
        psnr: In dB; infinite for equal images.
        ssim: Structural similarity.
    """

    mse: NDArray[np.float64]
    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]


def likeness(recovered: Tensor, originals: Tensor) -> Likeness:
    """Compare images (N, 3, H, W) in [0, 1] with their originals; see `bauta.metrics`."""
    one, other = (images.permute(0, 2, 3, 1).numpy() for images in (recovered, originals))
    mse = np.square(one.astype(np.float64) - other).mean((1, 2, 3))
    psnr = np.array([metrics.psnr(a, b) for a, b in zip(one, other, strict=True)])
    ssim = np.array([metrics.ssim(a, b) for a, b in zip(one, other, strict=True)])
    return Likeness(mse, psnr, ssim)
