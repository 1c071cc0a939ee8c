"""Settings of the mask that is fitted once for a person; see `bauta.cloaks.p3_mask`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bauta.settings import Flag, Range, Settings, Share


@dataclass(frozen=True)
class P3MaskConfig(Settings):
    """Settings of the personalised mask.

    Attributes:
        edit: ``spatial`` moves the face and changes its lightness, as the default mask does; ``colour`` is Chameleon's:
            one mask of colours, the same pixels on every photo.
        iterations: Steps of the fitting.
        batch: Faces that a step looks at.
        variants: Masks that are fitted together and kept apart; each photo gets one of them at random. One makes all
            protected photos look alike to a recogniser.
        apart: Weight of keeping protected faces apart from each other beside moving them away from the person.
        displacement: Longest displacement, in percent of the distance between the eyes.
        strain: Greatest stretch, squeeze or shear of the face, as a share.
        controls: Control points along a side of the crop.
        psnr: Floor of the PSNR of the lightness mask over the face, in dB, when the movement is undone.
        peak: Largest sample of the lightness mask, in multiples of its root mean square: a mask that suits many photos
            would otherwise gather on the nose.
        smoothing: Standard deviation of the Gaussian that smooths gradients, in pixels of a 112-pixel crop.
        pace: How far the steps of all iterations would lead in a straight line, in budgets.
        decay: Momentum decay.
        movement: Range of the standard deviations of the random affine movement of the crop; (0, 0) for none.
        scale: Largest share by which a surrogate's crop is made wider or tighter.
        mirror: Probability that a surrogate sees a crop in a mirror.
        noise: Greatest standard deviation of the noise on a surrogate's crop, in 1/255.
        epsilon: Largest change of a sample by a ``colour`` mask, in 1/255.
        step: Of a ``colour`` mask, in 1/255.
        dissimilarity: Of a ``colour`` mask, (1 - SSIM) / 2 from which on it is pushed back.
    """

    title: ClassVar[str] = "The personalised mask"
    presets: ClassVar[tuple[str, ...]] = ("chameleon",)

    edit: Literal["spatial", "colour"] = "spatial"
    iterations: Annotated[int, Range(at=1, to=10_000), Flag("steps")] = 160
    batch: Annotated[int, Range(at=1, to=64)] = 8
    variants: Annotated[int, Range(at=1, to=32)] = 4
    apart: Annotated[float, Range(at=0, to=10)] = 1.0
    displacement: Annotated[float, Range(at=0, to=10)] = 4.2
    strain: Annotated[float, Range(above=0, to=0.5)] = 0.18
    controls: Annotated[int, Range(at=4, to=25)] = 11
    psnr: Annotated[float, Range(at=20, to=60)] = 34.0
    peak: Annotated[float, Range(at=1, to=100)] = 2.5
    smoothing: Annotated[float, Range(at=0, to=20)] = 1.2
    pace: Annotated[float, Range(above=0, to=1000)] = 12.0
    decay: Annotated[float, Range(at=0, to=1)] = 0.8
    movement: Annotated[tuple[float, float], Range(at=0, to=1)] = (0.01, 0.06)
    scale: Annotated[float, Range(at=0, to=0.5)] = 0.15
    mirror: Share = 0.5
    noise: Annotated[float, Range(at=0, to=255)] = 12.0
    epsilon: Annotated[float, Range(above=0, to=255), Flag("eps")] = 16.0
    step: Annotated[float, Range(above=0, to=255)] = 0.255
    dissimilarity: Annotated[float, Range(above=0, to=1)] = 0.03

    @classmethod
    def chameleon(cls) -> P3MaskConfig:
        """As in the code released with Chameleon; 13 batches of 4 in each of 50 epochs for 50 photos, and as many for
        fewer photos."""
        return cls(edit="colour", batch=4, variants=1, apart=0.0, iterations=150)

    def problems(self) -> Iterator[tuple[str, str]]:
        """A range begins below where it ends."""
        if self.movement[0] > self.movement[1]:
            yield "movement", "Its first number is the smaller one."
