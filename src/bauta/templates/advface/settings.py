"""Settings of AdvFace; see `bauta.templates.advface.protector`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from bauta.learning.learners import Batch, Epochs, Rate
from bauta.settings import Range, Settings, Weight
from bauta.templates.advface.shadows import Shadow
from bauta.templates.representation import Storage

LATE = 0.7  # share of the iterations before the only look at the cosine


@dataclass(frozen=True)
class AdvFaceConfig(Settings):
    """Settings of AdvFace.

    Attributes:
        split: Where the recogniser is cut; see `bauta.recognizers.splits.find_cut`. The paper's feature is 64x56x56.
        shadows: The decoders to defend against; see `Shadow.parse`. The first makes the shadow image.
        epsilon: Half side of the box around each number, in standard deviations of its channel.
        step: Length of a step, as a share of epsilon.
        iterations: Steps.
        norm: ``linf`` is the box; ``l2`` is the ball of the same root mean square.
        structure: Weight of the structural similarity of shadow and reconstructed image (small squares in grey,
            contrast and structure only), beside the squared error. The error alone is won by wrong brightness, which
            leaves features of the face to be seen.
        identity: Weight of the term that keeps the template: it pulls as hard as the shadows do where the cosine
            between the templates of the stored and of the clean feature has fallen by 0.1.
        identity_every: Iterations between two looks at that cosine; in between, its last gradient is used again. 0 is
            a single look, at seven tenths of the iterations.
        anchor: ``shadow`` adds the noise to the shadow feature inside the loop, as the paper's cycle does; ``self``
            to the feature itself, from a random start.
        momentum: Decay of the accumulated gradient, which carries over to unknown decoders.
        noise: Standard deviation of Gaussian noise that the feature gets first and keeps, in those of each channel.
            It is what an attacker cannot compute; it comes on top of epsilon.
        in_range: Whether stored numbers stay in the range that clean features have, beyond which noise is clipped
            away by whoever knows it.
        storage: Type of the stored numbers.
    """

    title: ClassVar[str] = "AdvFace"
    presets: ClassVar[tuple[str, ...]] = ("paper",)
    split: str = "14x14"
    shadows: tuple[str, ...] = ("residual-32", "unet-16")
    epsilon: Annotated[float, Range(above=0, to=100)] = 0.6
    step: Annotated[float, Range(above=0, to=2)] = 0.1
    iterations: Annotated[int, Range(at=1, to=10_000)] = 20
    norm: Literal["linf", "l2"] = "linf"
    structure: Weight = 1.0
    identity: Weight = 0.1
    identity_every: Annotated[int, Range(at=0, to=10_000)] = 0
    anchor: Literal["shadow", "self"] = "shadow"
    momentum: Annotated[float, Range(at=0, below=1)] = 0.9
    noise: Annotated[float, Range(at=0, to=100)] = 0.0
    in_range: bool = True
    storage: Storage = "float16"

    def problems(self) -> Iterator[tuple[str, str]]:
        """Shadows that are none, too many, named twice, or no decoders."""
        if not 1 <= len(self.shadows) <= 8 or len(set(self.shadows)) != len(self.shadows):
            yield "shadows", "Name one to eight different decoders."
        for text in self.shadows:
            Shadow.parse(text)

    @classmethod
    def paper(cls) -> AdvFaceConfig:
        """What is known of the paper: one shadow, no further terms. Its budget and number of steps are ours."""
        return cls(
            split="64x56x56",
            shadows=("residual-32",),
            epsilon=0.5,
            step=0.125,
            iterations=20,
            structure=0.0,
            identity=0.0,
            momentum=0.0,
            in_range=False,
            storage="float32",
        )

    @property
    def looks(self) -> range:
        """The iterations at which the cosine to the clean template is looked at."""
        if not self.identity:
            return range(0)
        if not self.identity_every:
            return range(max(1, round(LATE * self.iterations)), self.iterations, self.iterations)
        return range(self.identity_every, self.iterations, self.identity_every)


@dataclass(frozen=True)
class ShadowTraining(Settings):
    """How the shadow decoders learn.

    Attributes:
        epochs: Passes of a shadow over the images.
        batch: Images in a step.
        rate: Adam's learning rate at the start.
    """

    title: ClassVar[str] = "the training of AdvFace"
    epochs: Epochs = 5
    batch: Batch = 16
    rate: Rate = 2e-3
