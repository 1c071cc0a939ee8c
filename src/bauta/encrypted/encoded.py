"""Galleries as the server multiplies them, in memory alone: a transformed gallery is a gallery in the clear.

Two kinds, one for each deployment. `PlainGallery` is the database's own, and probes come encrypted. `SealedGallery` is
held by a cloud for somebody else, is made of ciphertexts, and probes come in the clear.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bauta.encrypted.kernel import Residues, accumulate, halved, in_parts, is_reduced
from bauta.encrypted.masking import Supply, mask
from bauta.encrypted.packing import Layout
from bauta.encrypted.parameters import DEGREE, PRIMES
from bauta.encrypted.quantisation import Templates, require_unit
from bauta.encrypted.scheme import PublicKey, SecretKey
from bauta.encrypted.transform import Floats, transforms
from bauta.errors import UsageError

BLOCK = 64
"""Groups that are kept in one array; 268 MB at a split of 128."""
_ROWS = 256  # polynomials that are transformed at once


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """What a server makes of some groups, for Q probes.

    Attributes:
        first: Masked c0, (Q, groups, primes, group) coefficients: goes to the door.
        second: Masked c1, (Q, groups, primes, 4096) in slots: goes to the door.
        share: (Q, groups * group) below 2^21: what the door's decryption exceeds the scores by. Stays.
    """

    first: Residues
    second: Residues
    share: NDArray[np.uint32]


class EncodedGallery(ABC):
    """What both kinds share.

    Args:
        layout: How templates are packed.

    Attributes:
        places: Where somebody may stand; those that are vacant score 0, which never matches.
    """

    sides: int
    """Rows of a group: one for templates, two for ciphertexts."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._blocks: list[Residues] = []  # (primes, 4096, groups * sides, split)
        self._sizes: list[int] = []  # groups of each block
        self._taken = np.zeros(0, bool)
        self._masks = Supply(layout.width)

    @property
    def places(self) -> int:
        """How many there are, vacant ones too."""
        return len(self._taken)

    @property
    def people(self) -> int:
        """How many places are taken."""
        return int(self._taken.sum())

    @property
    def groups(self) -> int:
        """How many there are."""
        return self.places // self.layout.group

    def memory(self) -> int:
        """Bytes of the encoded gallery."""
        return sum(block.nbytes for block in self._blocks)

    def draw_ahead(self, public: PublicKey, probes: int) -> bool:
        """Draw masks for later answers, a few at a time: they depend on the key alone.

        Args:
            public: The door's key.
            probes: How many searches of all groups they shall do for.

        Returns:
            Whether they do.
        """
        missing = probes * self.groups - self._masks.count(public)
        if missing > 0:
            self._masks.draw(public, min(missing, BLOCK))
        return missing <= BLOCK

    def _require_taken(self, place: int) -> None:
        if not 0 <= place < self.places or not self._taken[place]:
            raise UsageError(f"Place {place} is vacant.", hint="Give the place of somebody who is enrolled.")

    def _vacant(self) -> list[int]:
        return np.flatnonzero(~self._taken).tolist()

    def _find(self, group: int) -> tuple[int, int]:
        """The block of a group, and its number there."""
        for block, size in enumerate(self._sizes):
            if group < size:
                return block, group
            group -= size
        raise AssertionError("groups are counted by the blocks")

    def _fill(self, block: Residues, taken: int) -> None:
        """Keep a new block, in which so many of the first places are taken."""
        self._blocks.append(block)
        self._count(block.shape[2] // self.sides, taken)

    def _count(self, groups: int, taken: int) -> None:
        self._sizes.append(groups)
        self._taken = np.concatenate([self._taken, np.arange(groups * self.layout.group) < taken])

    def _rows(self, group: int) -> Residues:
        """The rows of a group, (primes, 4096, sides, split), to be changed."""
        number, inside = self._find(group)
        block = self._blocks[number]
        return block.reshape(*block.shape[:2], self.sides, -1, self.layout.split)[:, :, :, inside]

    def _add(self, group: int, values: Residues) -> None:
        """Add transformed polynomials (primes, 4096, sides, split) to a group."""
        rows = self._rows(group)
        primes = np.array(PRIMES, np.uint32)[:, None, None, None]
        rows[:] = (rows + values) % primes  # of 28 bits at most

    @abstractmethod
    def _factors(self, probes: NDArray[np.uint32] | Templates, place: int) -> Floats:
        """Probes as columns for one prime."""

    @abstractmethod
    def _halves(self, sums: Floats, probes: int) -> tuple[Floats, Floats]:
        """c0 and c1, (probes, 4096, groups) each, of what was accumulated."""

    @abstractmethod
    def check(self, probes: NDArray[np.uint32] | Templates) -> None:
        """Let probes through that can be multiplied.

        Raises:
            UsageError: when they have another form.
        """

    def answer(
        self, probes: NDArray[np.uint32] | Templates, public: PublicKey, group: int | None = None
    ) -> Iterator[Answer]:
        """Masked answers, block by block.

        Args:
            probes: Q of them: ciphertexts (Q, primes, 4096, split, 2) in slots, or (Q, dimension) whole numbers.
            public: The door's key.
            group: Only this one; all by default.

        Raises:
            UsageError: when probes have another form.
        """
        self.check(probes)
        factors = [self._factors(probes, place) for place in range(len(PRIMES))]
        if group is not None:
            rows = self._rows(group)
            yield self._answer(np.ascontiguousarray(rows), factors, len(probes), public)
            return
        for block in self._blocks:
            yield self._answer(block, factors, len(probes), public)

    def _answer(self, block: Residues, factors: Sequence[Floats], probes: int, public: PublicKey) -> Answer:
        firsts, seconds = [], []
        for place, each in enumerate(transforms()):
            first, second = self._halves(accumulate(block[place], factors[place], each.prime), probes)
            firsts.append(first)
            seconds.append(second)
        groups, group = firsts[0].shape[2], self.layout.group
        made = Answer(
            np.empty((probes, groups, len(PRIMES), group), np.uint32),
            np.empty((probes, groups, len(PRIMES), DEGREE), np.uint32),
            np.empty((probes, groups * group), np.uint32),
        )
        for probe in range(probes):
            masks = self._masks.take(public, groups)
            one, other = ([part[probe] for part in half] for half in (firsts, seconds))
            made.first[probe], made.second[probe] = mask(one, other, masks)
            made.share[probe] = masks.share.reshape(-1)
        return made


class PlainGallery(EncodedGallery):
    """The database's own gallery, in the clear, in memory; probes are encrypted."""

    sides = 1

    def add(self, templates: Templates) -> list[int]:
        """Enrol people: vacant places first, then new groups.

        Args:
            templates: (N, dimension) of `quantise`.

        Returns:
            Their places.

        Raises:
            UsageError: when the dimension is another.
        """
        self._require_dimension(templates)
        places = self._vacant()[: len(templates)]
        for place, template in zip(places, templates, strict=False):
            self.change(place, template.astype(np.int32))
            self._taken[place] = True
        rest = templates[len(places) :]
        if len(rest):
            start = self.places
            self._extend(rest)
            places += range(start, start + len(rest))
        return places

    def _extend(self, templates: Templates) -> None:
        for part in in_parts(len(templates), BLOCK * self.layout.group):
            self.append(templates[part])

    def append(self, templates: Templates) -> None:
        """One more block, of at most `BLOCK` groups."""
        groups = self.layout.groups(len(templates))
        block = np.empty((len(PRIMES), DEGREE, groups, self.layout.split), np.uint32)
        self._encode(templates, block)
        self._fill(block, len(templates))

    def renew(self, place: int, template: Templates) -> None:
        """Exchange one person's template, (dimension,).

        Raises:
            UsageError: when the place is vacant, or the dimension is another.
        """
        self._require_taken(place)
        self._require_dimension(template[None])
        self.change(place, template.astype(np.int32) - self.read(place))

    def erase(self, place: int) -> None:
        """Take one person out: their block is read back and subtracted, and nothing of it stays.

        Raises:
            UsageError: when the place is vacant.
        """
        self._require_taken(place)
        self.change(place, -self.read(place).astype(np.int32))
        self._taken[place] = False

    def _require_dimension(self, templates: Templates) -> None:
        if templates.ndim != 2 or templates.shape[1] != self.layout.dimension:
            raise UsageError(
                f"Templates {templates.shape} do not go into a gallery of {self.layout.dimension} values each.",
                hint="Embed all with one recogniser.",
            )

    def _encode(self, templates: Templates, block: Residues) -> None:
        size, split = self.layout.group, self.layout.split
        together = max(1, _ROWS // split)
        for part in in_parts(block.shape[2], together):
            packed = [
                self.layout.pack(templates[one * size : (one + 1) * size]) for one in range(part.start, part.stop)
            ]
            polynomials = np.concatenate(packed, axis=1)
            for place, each in enumerate(transforms()):
                block[place, :, part] = each.forward(polynomials).reshape(DEGREE, len(packed), split)

    def change(self, place: int, difference: NDArray[np.int32]) -> None:
        """Add a difference of templates, (dimension,), to a place."""
        packed = self.layout.pack(alone(self.layout, place, difference))
        values = [each.forward(packed).astype(np.uint32)[:, None] for each in transforms()]
        self._add(place // self.layout.group, np.stack(values))

    def read(self, place: int) -> Templates:
        """The template at a place, (dimension,): whoever has this memory has the gallery."""
        group, inside = divmod(place, self.layout.group)
        each = transforms()[0]
        polynomials = each.inverse(self._rows(group)[0, :, 0].astype(np.float64))
        polynomials[polynomials > each.prime // 2] -= each.prime
        made: Templates = self.layout.unpack(polynomials)[inside]
        return made

    def check(self, probes: NDArray[np.uint32] | Templates) -> None:
        """See `EncodedGallery.check`."""
        if probes.ndim != 5 or probes.shape[1:] != (len(PRIMES), DEGREE, self.layout.split, 2):
            raise UsageError("A probe has another form.", hint="Encrypt it for this gallery's layout.")
        if probes.dtype != np.uint32 or not is_reduced(probes.astype(np.uint32, copy=False), 1):
            raise UsageError("A probe is not a ciphertext: a residue is too large.", hint="Encrypt it again.")

    def _factors(self, probes: NDArray[np.uint32] | Templates, place: int) -> Floats:
        columns = probes[:, place].transpose(1, 2, 3, 0)  # slots, pieces, halves, probes
        return halved(columns.reshape(DEGREE, self.layout.split, -1).astype(np.uint32, copy=False))

    def _halves(self, sums: Floats, probes: int) -> tuple[Floats, Floats]:
        return sums[:probes], sums[probes:]


class SealedGallery(EncodedGallery):
    """A gallery of ciphertexts, which its holder cannot read; probes come in the clear, 8 kB a template at D = 512."""

    sides = 2

    def add_groups(self, ciphertexts: Residues, people: int) -> list[int]:
        """Take whole groups in.

        Args:
            ciphertexts: (groups, primes, 4096, split, 2) in slots, of `seal_groups`.
            people: How many they hold, from the first place on.

        Returns:
            Their places.

        Raises:
            UsageError: when they have another form.
        """
        self._check_ciphertexts(ciphertexts)
        if self.layout.groups(people) != len(ciphertexts):
            raise UsageError(
                f"{people} people do not fill {len(ciphertexts)} groups.", hint="Send the groups that they fill."
            )
        start, size = self.places, self.layout.group
        for part in in_parts(len(ciphertexts), BLOCK):
            # primes, slots, halves, groups, pieces
            block = np.ascontiguousarray(ciphertexts[part].transpose(1, 2, 4, 0, 3))
            self._fill(block.reshape(*block.shape[:2], -1, self.layout.split), people - part.start * size)
        return list(range(start, start + people))

    def change(self, place: int, ciphertexts: Residues, *, taken: bool) -> None:
        """Add the encryption of a block, or of a difference, to the group of a place.

        Args:
            place: Of the person who is added, renewed or erased.
            ciphertexts: (primes, 4096, split, 2) in slots, of `seal_groups`.
            taken: Whether somebody stands there afterwards.

        Raises:
            UsageError: when there is no such place, or they have another form.
        """
        if not 0 <= place < self.places:
            raise UsageError(f"There is no place {place}.", hint="Send a new group.")
        self._check_ciphertexts(ciphertexts[None])
        self._add(place // self.layout.group, ciphertexts.swapaxes(2, 3))
        self._taken[place] = taken

    def _check_ciphertexts(self, ciphertexts: Residues) -> None:
        wanted = (len(PRIMES), DEGREE, self.layout.split, 2)
        if ciphertexts.ndim != 5 or ciphertexts.shape[1:] != wanted or not is_reduced(ciphertexts, 1):
            raise UsageError("A sealed group has another form.", hint="Seal it for this gallery's layout.")

    def check(self, probes: NDArray[np.uint32] | Templates) -> None:
        """See `EncodedGallery.check`; norms are checked too, for here they can be."""
        if probes.ndim != 2 or probes.dtype != np.int16 or probes.shape[1] != self.layout.dimension:
            raise UsageError("A probe has another form.", hint="Send it as `quantise` makes it.")
        require_unit(probes.astype(np.int16))

    def _factors(self, probes: NDArray[np.uint32] | Templates, place: int) -> Floats:
        columns = np.stack([self.layout.probe(one.astype(np.int16)) for one in probes], axis=2)
        values = transforms()[place].forward(columns.reshape(DEGREE, -1))
        return halved(values.reshape(columns.shape).astype(np.uint32))

    def _halves(self, sums: Floats, probes: int) -> tuple[Floats, Floats]:
        groups = sums.shape[2] // 2
        return sums[..., :groups], sums[..., groups:]


def seal_groups(key: SecretKey, layout: Layout, templates: Templates) -> Residues:
    """Groups of people as a cloud keeps them, encrypted by SEAL, 1 ms a template.

    Args:
        key: The owner's.
        layout: Of the cloud's gallery.
        templates: (N, dimension).

    Returns:
        (groups, primes, 4096, split, 2) in slots, for `SealedGallery.add_groups`.
    """
    parts = in_parts(len(templates), layout.group)
    return np.stack([key.encrypt(layout.pack(templates[part])) for part in parts])


def seal_change(key: SecretKey, layout: Layout, place: int, difference: NDArray[np.int32]) -> Residues:
    """One person's block, or a difference of two, for `SealedGallery.change`.

    Args:
        key: The owner's.
        layout: Of the cloud's gallery.
        place: Of the person.
        difference: (dimension,): the template to add, less the one that stands there.
    """
    return key.encrypt(layout.pack(alone(layout, place, difference)))


def alone(layout: Layout, place: int, template: NDArray[np.int32]) -> NDArray[np.int32]:
    """A group of one person."""
    made = np.zeros((layout.group, layout.dimension), np.int32)
    made[place % layout.group] = template
    return made
