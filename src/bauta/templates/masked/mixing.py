"""Mixing faces: who is mixed with whom, in what shares, and what of it is stored.

Mixtures of pixels are rows to compare with: mixup (Zhang et al. 2018), and with random signs InstaHide (Huang et al.
2020). Mixtures of frequencies are in `bauta.templates.masked.hybrid_masking`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bauta.errors import UsageError
from bauta.settings import Range, Share, Weight
from bauta.templates.base import SIDE
from bauta.templates.masked.masking import Masked, Masking, MaskingConfig, MaskingData, Reader, alone, stretched
from bauta.templates.masked.strangers import Strangers
from bauta.templates.representation import Kind
from bauta.templates.steps import descend

LARGEST_SHARE = 0.65  # of one of the others in a mixture of three or more, as in InstaHide
FEWEST, MOST = 2, 6  # faces in a mixture: the range of adaptive hybrid masking
MOMENTUM = 0.7  # of the steps towards the face's template
ACROSS = 2.25  # times that all of them in one direction would cross the budget

Partners = Literal["strangers", "batch", "both"]
Law = Literal["share", "power"]
Steps = Annotated[int, Range(at=0, to=1000)]
Budget = Annotated[float, Range(at=0, to=255)]


def draw_shares(
    counts: Tensor,
    least: float,
    generator: torch.Generator,
    *,
    most: float = LARGEST_SHARE,
    law: Law = "share",
) -> Tensor:
    """Shares of the faces in mixtures, (N, most of counts), summing to 1; places beyond a count are 0.

    The first face gets between `least` and `most`, evenly, and by the law ``share`` 1/k at least; the others divide the
    rest by a flat Dirichlet distribution, brought nearer to equal parts where one of several would get more than 0.65.
    Which law the published methods draw from is known of InstaHide only (at most 0.65 each); the rest is our design.

    So the more others there are, the more they average out: the power of k - 1 parts of a flat Dirichlet distribution
    is 2 / k of that of one. By the law ``power`` both limits are those of two faces, and fall with k so that the
    others' power beside that of the face stays the same: (1 - s) / s grows with the root of k / 2.

    Args:
        counts: (N,) int64, 1 or more each.
        least: In [0, 1]; 0 stands for 1/k.
        generator: Of the draw.
        most: In [least, 1].
        law: What stays the same however many faces are mixed: the first one's ``share``, or the others' ``power``.
    """
    places = int(counts.max())
    limits = torch.tensor([least, most]).expand(len(counts), 2)
    if law == "power":
        limits = limits / (limits + (1 - limits) * (counts[:, None] / 2).sqrt())
    first = limits[:, 0] if law == "power" and least else torch.maximum(1 / counts, limits[:, 0])
    top = torch.where(counts > 1, torch.maximum(first, limits[:, 1]), torch.ones(len(counts)))
    first = first + (top - first) * torch.rand(len(counts), generator=generator)
    others = torch.zeros(len(counts), places)
    others[:, 1:] = -torch.rand(len(counts), places - 1, generator=generator).clamp_min(1e-9).log()
    others = others * (torch.arange(places) < counts[:, None])
    others = others / others.sum(1, keepdim=True).clamp_min(1e-12)
    rest = (1 - first)[:, None]
    equal = (torch.arange(places) > 0) & (torch.arange(places) < counts[:, None])
    equal = equal / (counts[:, None] - 1).clamp_min(1)
    largest = (rest * others).amax(1, keepdim=True)
    smooth = rest * equal.amax(1, keepdim=True)
    pull = ((largest - LARGEST_SHARE) / (largest - smooth).clamp_min(1e-9)).clamp(0, 1)
    pull = torch.where(counts[:, None] > 2, pull, torch.zeros(1))
    shares = rest * (others + pull * (equal - others))
    shares[:, 0] = torch.where(counts > 1, first, torch.ones(len(counts)))
    return shares


def draw_members(counts: Tensor, people: Tensor, partners: Partners, generator: torch.Generator) -> Tensor:
    """Who is mixed with whom: (N, most of counts) int64 places in the batch; -1 is a face of nobody.

    Args:
        counts: (N,) int64.
        people: (N,) int64, so that nobody is mixed with another photo of their own; empty when not known.
        partners: Other faces of the ``batch``, ``strangers``, or one or the other for each face (``both``).
        generator: Of the draw.

    Raises:
        UsageError: when the batch has too few people for a count.
    """
    members = torch.full((len(counts), int(counts.max())), -1, dtype=torch.int64)
    members[:, 0] = torch.arange(len(counts))
    inside = torch.rand(len(counts), generator=generator) < 0.5
    if partners != "both":
        inside = torch.full_like(inside, partners == "batch")
    for place, (count, here) in enumerate(zip(counts.tolist(), inside.tolist(), strict=True)):
        if not here or count < 2:
            continue
        order = torch.randperm(len(counts), generator=generator).tolist()
        seen = {int(people[place]) if len(people) else place}
        found: list[int] = []
        for one in order:
            person = int(people[one]) if len(people) else one
            if person not in seen and len(found) < count - 1:
                seen.add(person)
                found.append(one)
        if len(found) < count - 1:
            raise UsageError(
                f"A batch of {len(seen)} people is too small to mix {count} faces.",
                hint="Give more people or a larger batch, or mix fewer faces.",
            )
        members[place, 1:count] = torch.tensor(found)
    return members


def number_strangers(members: Tensor, shares: Tensor) -> tuple[Tensor, int]:
    """`members` with -1 - j for stranger j, another one for every place, and how many must be drawn.

    Args:
        members: (N, K), see `draw_members`.
        shares: (N, K); places without a share stay -1.
    """
    wanted = (members < 0) & (shares > 0)
    order = wanted.flatten().cumsum(0).reshape(wanted.shape) - 1
    return torch.where(wanted, -1 - order, members), int(wanted.sum())


def mixed(own: Tensor, members: Tensor, shares: Tensor, strangers: Tensor) -> Tensor:
    """Mixtures (N, C, H, W): sums of shares of faces, masked or not.

    Args:
        own: (N, C, H, W), the batch's faces.
        members: (N, K): a place in the batch, or -1 - j for stranger j.
        shares: (N, K); where it is 0 nothing is added.
        strangers: (S, C, H, W), faces of nobody.
    """
    rows = []
    for places, parts in zip(members.tolist(), shares.tolist(), strict=True):
        total = torch.zeros_like(own[0])
        for place, part in zip(places, parts, strict=True):
            if part > 0:
                total = total.add_(own[place] if place >= 0 else strangers[-1 - place], alpha=part)
        rows.append(total)
    return torch.stack(rows)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is mixed.

    Attributes:
        members: (N, K), see `number_strangers`.
        shares: (N, K), see `draw_shares`.
        strangers: (S, 3, 112, 112) in [0, 1], faces of nobody.
        counts: (N,) int64, faces in each mixture.
    """

    members: Tensor
    shares: Tensor
    strangers: Tensor
    counts: Tensor


@dataclass(frozen=True)
class MixingConfig(MaskingConfig):
    """Settings of whatever mixes faces.

    Attributes:
        least: Share of the first face, at least; 0 leaves it at 1/k.
        most: The same at most.
        law: How these depend on the number of faces; see `draw_shares`.
        partners: Who is mixed in while the recogniser learns: others of the ``batch``, whose names count by their
            shares, faces of nobody (``strangers``), or ``both``. What is stored is mixed with strangers.
        components: Eigenfaces that faces of nobody are drawn from.
        alone: Share of the faces that stay unmixed while the recogniser learns from mixtures; it must read both, or,
            with a reader of what is stored, these alone.
        signs: Whether every number then gets a random sign, as in InstaHide.
        stored_share: Share of the first face in what is stored, by the same law; 0 leaves it as it is learned from.
        steps: Steps that bring the template of what is stored back to that of the face; see `Mixing.stored`.
        budget: How far they may change a sample of the mixture, in 1/255.
        apart: Weight with which the steps also keep the recogniser at the door from finding the face, or its opposite;
            another network then learns to read what is stored. With 0 one network reads both.
    """

    least: Share = 0.6
    most: Share = LARGEST_SHARE
    law: Law = "share"
    partners: Partners = "strangers"
    components: Annotated[int, Range(at=1, to=1024)] = 64
    alone: Share = 0.0
    signs: bool = False
    stored_share: Share = 0.0
    steps: Steps = 0
    budget: Budget = 2.0
    apart: Weight = 0.0

    def problems(self) -> Iterator[tuple[str, str]]:
        """Shares that leave nothing to draw from."""
        if self.least > self.most:
            yield "least", "It is not above most."


@dataclass(frozen=True)
class MixConfig(MixingConfig):
    """Settings of mixtures in pixels.

    Attributes:
        mix: Faces in a mixture.
    """

    title: ClassVar[str] = "mixup"
    mix: Annotated[int, Range(at=FEWEST, to=MOST)] = 2


class Mixing(Masking):
    """Mixtures of masked faces; subclasses say how one face is masked, and how many are mixed.

    The recogniser first learns to read one masked face, and meets mixtures in the fine-tuning. Our design: taught on
    mixtures from the start, with the same number of steps, it read neither well.

    Args:
        config: With the fields of `MixingConfig`.
    """

    late: ClassVar[bool] = True
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.stage = ""
        self.strangers = Strangers(config.components)

    def prepare(self, data: MaskingData) -> dict[str, float]:
        """Learn what faces of nobody look like; see `Masking.prepare`."""
        most = max(self.choices)
        people = len(set(data.people.tolist())) if len(data.people) else len(data.pixels)
        if people < most:
            raise UsageError(
                f"{people} people are too few to mix {most} faces.", hint="Give more people, or mix fewer faces."
            )
        if self.config.partners != "strangers" and data.schedule.batch < most:
            raise UsageError(
                f"In batches of {data.schedule.batch} there are no {most} faces to mix.",
                hint="Set a larger batch, or partners=strangers.",
            )
        self.strangers.learn(data.pixels)
        return {}

    @property
    def choices(self) -> Sequence[int]:
        """Numbers of faces that may be in a mixture."""
        return (self.config.mix,)

    def begin(self, stage: str) -> None:
        """Mixtures are for the fine-tuning, and for what is stored."""
        self.stage = stage

    @property
    def apart(self) -> bool:
        """See `Masking.apart`."""
        return bool(self.config.steps and self.config.apart)

    def stored(self, images: Tensor, reader: Reader, generator: torch.Generator) -> Tensor:
        """A mixture of the share that is stored, changed a little until its reader finds the face's template in it.

        The change is made in pixels, so that a mixture stays the mask of some picture and nothing can be told apart by
        not being one. With `apart` it is also one in which the recogniser at the door finds a stranger, neither like
        the face nor its opposite, so that the picture does not pass there and tells nobody whose it is. Our design; see
        `Masking.stored`.
        """
        if not self.config.steps:
            return self.masked(images, self.draw_stored(images, generator), generator)
        return self.hide(images, self.wanted(images, reader, generator), reader, generator, self.config.steps)

    def wanted(self, images: Tensor, reader: Reader, generator: torch.Generator) -> Tensor:
        """(N, D): the means of the templates of faces and of their mirror images, as at the door; a record has room for
        one only, and the mean is better than either."""
        seen, mirrored = (reader.recognise(reader.look(faces, generator)) for faces in (images, images.flip(3)))
        return functional.normalize(seen + mirrored, dim=1)

    def hide(
        self, images: Tensor, wanted: Tensor, reader: Reader, generator: torch.Generator, steps: int
    ) -> Tensor:  # fmt: skip
        """Mixtures (N, C, H, W) of faces in which the reader finds the templates that are wanted.

        Args:
            images: (N, 3, 112, 112) in [0, 1].
            wanted: (N, D), unit norm.
            reader: The recognisers.
            generator: Of everything random.
            steps: Of the gradient's sign.
        """
        config, drawn = self.config, self.draw_stored(images, generator)
        state = generator.get_state()

        def again() -> torch.Generator:  # what else is random is the same in each step
            return torch.Generator().set_state(state)

        def shown(pixels: Tensor) -> Tensor:
            drawing = again()
            return self.finished(self.single_unsigned(pixels, drawing), drawing)

        def loss(pixels: Tensor, _: int) -> Tensor:
            pictures = reader.look(pixels, again()) if self.plain else reader.unmask(shown(pixels))
            distance = -(reader.read(pictures) * wanted).sum()
            if not config.apart:
                return distance
            # Towards 0 from both sides: whoever is less like the face than a stranger is linked as well as who is more.
            seen = (reader.recognise(pictures) * wanted).sum(1).abs()
            both: Tensor = distance + config.apart * seen.sum()
            return both

        whole = descend(
            mixed(images, drawn.members, drawn.shares, drawn.strangers), loss,
            budget=config.budget / 255, iterations=steps, across=ACROSS, decay=MOMENTUM,
            shrinking=True,
        )  # fmt: skip
        # As shown last, but by the generator itself: what is drawn after it must not be drawn once more.
        values: Tensor = self.finished(self.single_unsigned(whole, generator), generator)
        return values

    @property
    def unsigned(self) -> bool:
        """See `Masking.unsigned`."""
        signs: bool = self.config.signs
        return signs

    @property
    def affine(self) -> bool:
        """Whether masking mixed faces and mixing masked faces is the same."""
        return True

    @property
    def plain(self) -> bool:
        """Whether nothing is done to masks and mixtures after mixing."""
        return not self.config.signs

    def choose(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) int64: how many faces to mix with each."""
        return torch.full((len(images),), self.choices[0])

    def signed(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Random signs, where the settings ask for them."""
        if not self.config.signs:
            return values
        return values * (2.0 * (torch.rand(values.shape, generator=generator) < 0.5) - 1)

    def mixture(self, images: Tensor, people: Tensor, partners: Partners, generator: torch.Generator) -> Masked:
        """Mixtures to learn from, and what is in them.

        Args:
            images: (N, 3, 112, 112) in [0, 1].
            people: (N,) int64, or empty.
            partners: Who is mixed in.
            generator: Of everything random.
        """
        drawn = self.draw(images, people, partners, generator, (self.config.least, self.config.most), self.config.alone)
        return Masked(self.masked(images, drawn, generator), drawn.members, drawn.shares, drawn.counts)

    def draw(
        self,
        images: Tensor,
        people: Tensor,
        partners: Partners,
        generator: torch.Generator,
        limits: tuple[float, float],
        alone: float = 0.0,
    ) -> Drawn:
        """Who is mixed in, and how much of each.

        Args:
            images: As for `mixture`.
            people: As for `mixture`.
            partners: As for `mixture`.
            generator: Of everything random.
            limits: Of the first face's share.
            alone: Share of the faces that nothing is mixed with.
        """
        counts = self.choose(images, generator)
        if alone:
            counts = torch.where(torch.rand(len(images), generator=generator) < alone, torch.ones_like(counts), counts)
        shares = draw_shares(counts, limits[0], generator, most=limits[1], law=self.config.law)
        members = draw_members(counts, people, partners, generator)
        members, needed = number_strangers(members, shares)
        return Drawn(members, shares, self.strangers.draw(needed, generator) if needed else images[:0], counts)

    def draw_stored(self, images: Tensor, generator: torch.Generator) -> Drawn:
        """Which faces of nobody are mixed into what is stored, and how much."""
        share = self.config.stored_share
        limits = (share, share) if share else (self.config.least, self.config.most)
        return self.draw(images, torch.empty(0, dtype=torch.int64), "strangers", generator, limits)

    def masked(self, images: Tensor, drawn: Drawn, generator: torch.Generator) -> Tensor:
        """Images mixed as drawn, masked and finished."""
        own, strangers = images, drawn.strangers
        if self.affine:  # the mask of the mixture is the mixture of the masks, and one mask is less work than many
            values = self.single_unsigned(mixed(own, drawn.members, drawn.shares, strangers), generator)
        else:
            own = self.single_unsigned(own, generator)
            strangers = self.single_unsigned(strangers, generator) if len(strangers) else own[:0]
            values = mixed(own, drawn.members, drawn.shares, strangers)
        return self.finished(values, generator)

    def finished(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Mixtures with signs, and with whatever else hides a part of them."""
        return self.covered(self.signed(values, generator), generator)

    def covered(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Mixtures with whatever else hides a part of them."""
        return values

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Faces mixed with strangers, as they are stored but for the steps."""
        return self.masked(images, self.draw_stored(images, generator), generator)

    def batch(self, images: Tensor, people: Tensor, generator: torch.Generator) -> Masked:
        """Faces mixed with partners as the settings say, from the fine-tuning on; see `Masking.batch`."""
        if self.stage == "distillation":
            return alone(self.single(images, generator))
        return self.mixture(images, people, self.config.partners, generator)

    def single(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One face alone, with the signs that mixtures have."""
        return self.signed(self.single_unsigned(images, generator), generator)

    @abstractmethod
    def single_unsigned(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One face alone, as it goes into a mixture."""


class PixelMixing(Mixing):
    """Mixtures of pixels: mixup, and with random signs InstaHide."""

    Config = MixConfig
    kind: ClassVar[Kind] = "image"

    def __init__(self, config: MixConfig) -> None:
        super().__init__(config)
        self.shape = (3, SIDE, SIDE)

    def single_unsigned(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The image in [-1, 1], so that signs hide light from dark."""
        return 2 * images - 1

    def picture(self, values: Tensor) -> Tensor:
        """The mixture; of InstaHide the absolute values, which every attack on it starts from."""
        return stretched(values.abs()) if self.config.signs else ((values + 1) / 2).clamp(0, 1)
