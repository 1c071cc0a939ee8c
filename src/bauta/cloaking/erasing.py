"""What was under a mask travels in the photo, sealed: its owner takes the mask off, exactly, whatever the method was.

Our design. The goal is ErasableMask's (arXiv 2412.17038), a mask that can be erased without loss of quality; there a
network erases it, and so does anybody's copy of that network. Here the samples under every mask and cover are
compressed, padded, and encrypted under the owner's key or passphrase (`bauta.learning.sealing`). What is sealed is
bound to the photo by its size and by an overview of it, so that a part that was moved to another photo is refused.

The padding brings the length to a multiple of a quarter of a byte for each covered sample: it tells about how large the
covered regions are and how detailed, which the photo shows as well, and no more.
"""

from __future__ import annotations

import struct

import numpy as np

from bauta.errors import BautaError, OutputError, UsageError, WrongKey
from bauta.keys import DeploymentKey
from bauta.learning.sealing import seal, unseal
from bauta.photo import Photo, read_photo
from bauta.photo.attachment import REGIONS, attach, attached
from bauta.photo.regions import Region, changed_regions, coded_region, overview, shape_of, with_region

VERSION = 1

_SIDE = 16
_HEAD = struct.Struct(f">B4IH{_SIDE * _SIDE}s")  # version, shape as stored, regions, overview of the masked photo
_REGION = struct.Struct(">5I")  # top, left, height, width, bytes
_LEAST_UNIT = 1024
_APART, _ALIKE = 3.0, 0.4
"""A photo is taken for the one that was sealed, saved anew or with a further mask, when this share of the fields of its
overview differ by no more than so many 1/255. Among 187 other photos, of LFW, 5 % do on average and 33 % at most."""
_LIKE_BEFORE = 40.0
"""PSNR in dB from which on a region of a JPEG is what it was, but for its rounding."""


def sealed_regions(original: Photo, masked: Photo, key: DeploymentKey) -> bytes:
    """Everything that differs in the original, sealed.

    Args:
        original: Before.
        masked: After, as it will be saved: of the same size, format and depth.
        key: Of the owner.
    """
    regions = changed_regions(original, masked)
    pieces = [coded_region(original, region) for region in regions]
    content = _HEAD.pack(VERSION, *shape_of(original), len(regions), overview(masked, _SIDE).tobytes())
    for region, piece in zip(regions, pieces, strict=True):
        content += _REGION.pack(region.top, region.left, region.height, region.width, len(piece)) + piece
    unit = max(_LEAST_UNIT, sum(region.height * region.width for region in regions) // 4)
    return seal(content + bytes(-len(content) % unit), key)


def erase(photo: Photo, key: DeploymentKey) -> Photo:
    """The photo with everything put back that opens under a key: later masks come off first.

    Args:
        photo: As `bauta.protect` made it with ``erasable``.
        key: That it was made with.

    Raises:
        UsageError: when the photo carries nothing sealed, is another one than was sealed, or has another size.
        WrongKey: when nothing in it opens under the key.
        WeightsCorrupt: when what is sealed was changed.
    """
    name = str(photo.path or "The photo")
    sealed = [body for kind, body in attached(photo.content) if kind == REGIONS]
    if not sealed:
        raise UsageError(
            f"{name} carries nothing that could be put back: it was not made with --erasable, or was saved anew.",
            hint="Take the file that Bauta wrote; networks and editors that save a photo anew leave that out.",
        )
    restored, refused = photo, None
    opened = False
    for body in reversed(sealed):
        try:
            content = unseal(body, key, name)
        except WrongKey as error:
            refused = error
            continue
        restored, opened = _put_back(restored, content, name), True
    if not opened and refused is not None:
        raise refused
    return restored


def _put_back(photo: Photo, content: bytes, name: str) -> Photo:
    version, *shape, count, seen = _HEAD.unpack_from(content)
    if version != VERSION:
        raise UsageError(f"{name} was made by another version of Bauta.", hint="Use that one.")
    if (found := shape_of(photo)) != tuple(shape):
        (rows, columns), (height, width) = found[:2], shape[:2]
        raise UsageError(
            f"{name} is stored as {columns} x {rows} pixels, and was as {width} x {height} when it got its mask.",
            hint="Take the file that Bauta wrote: a photo that was cropped or resized cannot be restored.",
        )
    before = np.frombuffer(seen, np.uint8).astype(np.float32)
    if float((np.abs(overview(photo, _SIDE).reshape(-1) - before) <= _APART).mean()) < _ALIKE:
        raise UsageError(
            f"{name} is not the photo that this was sealed for.", hint="Take the file that Bauta wrote, unchanged."
        )
    position = _HEAD.size
    for _ in range(count):
        top, left, height, width, length = _REGION.unpack_from(content, position)
        position += _REGION.size + length
        photo = with_region(photo, Region(top, left, height, width), content[position - length : position])
    return photo


def erasable(content: bytes, original: Photo, masked: Photo, key: DeploymentKey) -> tuple[bytes, Photo]:
    """A file with one more section, which takes everything off again; and the photo as read from it.

    Sections that the original carried before stay. The masks are taken off once, to make sure that they come off.

    Args:
        content: Of the file, with the sections that it has by now.
        original: Before.
        masked: After, before it was encoded.
        key: Of the owner.

    Raises:
        OutputError: when the original does not come back.
    """
    earlier = [section for section in attached(original.content) if section[0] == REGIONS]
    sections = [*attached(content), *earlier, (REGIONS, sealed_regions(original, masked, key))]
    content = attach(content, sections)
    saved = read_photo(content)
    try:
        _, sealed = attached(saved.content)[-1]
        restored = _put_back(saved, unseal(sealed, key), "The photo")
    except BautaError as error:
        raise OutputError(f"What was sealed does not open: {error.message}", hint=_REPORT) from error
    for region in changed_regions(original, masked):
        one, other = (photo._raster.samples[region.part].astype(np.float32) for photo in (original, restored))
        apart = float(np.square((one - other) / original._raster.maximum).mean())
        if apart > (10 ** (-_LIKE_BEFORE / 10) if original.format == "JPEG" else 0):
            raise OutputError("The masks do not come off again as they were put on.", hint=_REPORT)
    return content, saved


_REPORT = "Nothing was written. Please report the photo's format and size as a bug, and leave --erasable out."
