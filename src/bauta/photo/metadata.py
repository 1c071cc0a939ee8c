"""What travels with the pixels, and what of it is kept in a photo that is going to be shared.

In private only what is known to be harmless stays: the lists are in `exif_fields`, `xmp`, `iptc` and in the
formats' own modules. Whatever can hold a second picture is removed under every policy, because an unprotected
preview of the face defeats the mask. Our design, drawn from the standards those modules name and from the tags
that exiftool documents.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from bauta.photo import exif_fields, iptc, xmp
from bauta.photo.cleaning import SEARCHED, Cleaning, Removed, against_text, is_plain_text, is_readable, program_values
from bauta.photo.embedded import carve
from bauta.photo.formats import exif as exif_block


class MetadataPolicy(Enum):
    """What is kept of a photo's metadata.

    ``PRIVATE`` keeps what is known to be harmless: dates, camera and lens models, exposure, captions, keywords,
    copyright notice, resolution, colour profile. Everything else goes, such as positions and places, serial
    numbers, maker notes, authors and owners, names of people in face regions and people tags, document ids,
    links, paths and prompts. ``KEEP`` removes embedded pictures only, what claims that they are there, and large
    blocks of unknown content, which may be pixels. ``STRIP`` keeps the orientation and the colour profile only.
    Thumbnails, previews, depth maps, films and other embedded pictures are removed under all three.
    """

    PRIVATE = "private"
    KEEP = "keep"
    STRIP = "strip"


class BlockKind(Enum):
    """Why a block is there, and so under which policies it stays."""

    COLOUR = "how to show the samples: stays under every policy"
    DESCRIPTION = "density, dates: stays unless stripped"
    TEXT = "comments and captions: stays unless stripped, when the text names no path and no program wrote it"
    MAKER = "a maker's or program's own block, which may name the device or the place: stays under KEEP"
    PICTURE = "may hold another picture: never stays"


@dataclass(frozen=True)
class Block:
    """A piece of metadata that one file format knows, in that format's own words.

    Attributes:
        kind: Decides under which policies it stays.
        name: The segment marker or chunk type.
        content: The payload.
        text: What the payload says, where it is a text.
        reason: What it is counted as when it goes.
    """

    kind: BlockKind
    name: bytes
    content: bytes = field(repr=False)
    text: str = field(default="", repr=False)
    reason: Removed = Removed.OTHER


_LARGEST_UNKNOWN = 2048  # bytes; unknown content beyond that may be pixels in a coding of its own


@dataclass(frozen=True)
class Metadata:
    """All metadata of one photo; absent parts are empty.

    Attributes:
        exif: EXIF block, from its TIFF header on.
        xmp: XMP packet.
        photoshop: Photoshop image resources (``8BIM...``).
        iptc: IPTC datasets that stand alone, as in TIFF.
        icc: ICC profile.
        blocks: Everything else.
        left: What never left the file that was read, such as a film behind the picture.
    """

    exif: bytes = field(default=b"", repr=False)
    xmp: bytes = field(default=b"", repr=False)
    photoshop: bytes = field(default=b"", repr=False)
    iptc: bytes = field(default=b"", repr=False)
    icc: bytes = field(default=b"", repr=False)
    blocks: tuple[Block, ...] = ()
    left: tuple[Removed, ...] = ()
    _cleaned: dict[MetadataPolicy, tuple[Metadata, Counter[Removed]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def under(self, policy: MetadataPolicy) -> Metadata:
        """What ``policy`` keeps of it. Parts that cannot be read cannot be cleaned and are dropped."""
        return self.cleaned(policy)[0]

    def cleaned(self, policy: MetadataPolicy) -> tuple[Metadata, Counter[Removed]]:
        """What ``policy`` keeps of it, and how many fields of each kind it removes."""
        if policy not in self._cleaned:
            self._cleaned[policy] = self._clean(policy)
        return self._cleaned[policy]

    def _clean(self, policy: MetadataPolicy) -> tuple[Metadata, Counter[Removed]]:
        cleaning = Cleaning(policy is MetadataPolicy.PRIVATE, removed=Counter(self.left))
        icc = _sound_profile(self.icc, cleaning)
        if policy is MetadataPolicy.STRIP:
            blocks = tuple(block for block in self.blocks if block.kind is BlockKind.COLOUR)
            parts = (self.exif, self.xmp, self.photoshop, self.iptc)
            cleaning.drop(Removed.STRIPPED, sum(map(bool, parts)) + len(self.blocks) - len(blocks))
            return Metadata(exif=_orientation_alone(self.exif), icc=icc, blocks=blocks), +cleaning.removed
        self._note_names(cleaning)
        kept = replace(
            self,
            exif=exif_fields.clean_exif(self.exif, cleaning),
            xmp=xmp.clean_xmp(self.xmp, cleaning),
            photoshop=iptc.clean_photoshop(self.photoshop, cleaning) if self.photoshop else b"",
            iptc=iptc.clean_datasets(self.iptc, cleaning) if self.iptc else b"",
            icc=icc,
            blocks=tuple(self._kept_blocks(cleaning)),
            left=(),
        )
        return kept, cleaning.removed

    def _note_names(self, cleaning: Cleaning) -> None:
        if cleaning.private:
            exif_fields.note_names(self.exif, cleaning)
            xmp.note_names(self.xmp, cleaning)
            iptc.note_names(self.photoshop, cleaning)
            iptc.note_names_of_datasets(self.iptc, cleaning)

    def _kept_blocks(self, cleaning: Cleaning) -> Iterator[Block]:
        prompts = list(_prompts(self.blocks))
        for block in self.blocks:
            reason = _against_block(block, cleaning, prompts)
            if reason is None:
                yield block
            else:
                cleaning.drop(reason)


def _against_block(block: Block, cleaning: Cleaning, prompts: list[str]) -> Removed | None:
    if block.kind is BlockKind.PICTURE:
        return block.reason
    if block.kind is BlockKind.COLOUR:
        return None
    if block.kind is BlockKind.MAKER and cleaning.private:  # goes in any case
        if cleaning.sees_picture(_said_by(block)[:SEARCHED]):
            return Removed.PICTURE
        return (against_text(block.text) if block.reason is Removed.OTHER else None) or block.reason
    if cleaning.sees_picture(_said_by(block)):
        return Removed.PICTURE
    if block.kind is BlockKind.MAKER:
        unknown = len(block.content) > _LARGEST_UNKNOWN and not (block.text or is_plain_text(block.content))
        return Removed.OTHER if unknown else None
    if block.kind is BlockKind.TEXT and cleaning.private:
        if not is_readable(block.text):
            return Removed.OTHER
        if any(block.text.strip() == prompt.strip() for prompt in prompts):
            return Removed.PROMPT
        notice = block.content.lower().startswith(b"copyright\0")
        return against_text(block.text) if notice else cleaning.against_caption(block.text)
    return None


def _said_by(block: Block) -> bytes:
    """What a block holds, and once only: its text where the content is packed."""
    text = block.text.encode("utf-8", "replace")
    packed = text.strip() and text not in block.content and block.text.encode("latin-1", "replace") not in block.content
    return text if packed else block.content


def _prompts(blocks: tuple[Block, ...]) -> Iterator[str]:
    """The prompts that programs' texts give; some programs repeat them as the caption (NovelAI)."""
    for block in blocks:
        values = program_values(block.text)
        if isinstance(values, dict):
            yield from (value for value in values.values() if isinstance(value, str) and len(value) > 8)


def _orientation_alone(block: bytes) -> bytes:
    orientation = exif_block.orientation_of(block)
    if orientation == 1:
        return b""
    entry = exif_block.integer_entry(exif_block.ORIENTATION, exif_block.SHORT, [orientation], ">")
    return exif_block.block_of([entry], {}, ">")


_LARGEST_SEARCHED = 2**20  # tables of numbers beyond that are looked through for raw pictures only
_PROFILE_HEADER = 132  # bytes with the number of tags (ICC.1:2022, 7.2 and 7.3)


def _sound_profile(profile: bytes, cleaning: Cleaning) -> bytes:
    """A colour profile bit for bit, without what stands behind it; nothing of what is none or hides a picture."""
    if not profile:
        return b""
    (size,) = struct.unpack(">I", profile[:4].rjust(4, b"\0"))
    if len(profile) < _PROFILE_HEADER or profile[36:40] != b"acsp" or not _PROFILE_HEADER <= size <= len(profile):
        cleaning.drop(Removed.UNREADABLE)
        return b""
    if profile[size:].strip(b"\0"):
        cleaning.drop(Removed.OTHER)
        profile = profile[:size]
    if any(True for _ in carve(profile, deep=len(profile) <= _LARGEST_SEARCHED)):
        cleaning.drop(Removed.PICTURE)
        return b""
    return profile
