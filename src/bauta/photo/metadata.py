"""What travels with the pixels, and what of it is kept in a photo that is going to be shared.

The lists below are our design, drawn from EXIF 2.32/3.0, the XMP specification, Photoshop's image resources
and the tags exiftool documents. Whatever can hold a second picture is removed under every policy, because
an unprotected preview of the face defeats the mask.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from bauta.photo.formats import exif as exif_block

if TYPE_CHECKING:
    from xml.dom import minidom


class MetadataPolicy(Enum):
    """What is kept of a photo's metadata.

    ``PRIVATE`` removes position, serial numbers, owner, names of people in face regions and maker notes, and
    keeps the rest (dates, camera model, exposure, captions, copyright, profile). ``KEEP`` removes embedded
    pictures only. ``STRIP`` keeps the orientation and the colour profile only. Thumbnails, previews, depth
    maps and other embedded pictures are removed under all three.
    """

    PRIVATE = "private"
    KEEP = "keep"
    STRIP = "strip"


class BlockKind(Enum):
    """Why a block is there, and so under which policies it stays."""

    COLOUR = "how to show the samples: stays under every policy"
    DESCRIPTION = "density, comments, dates: stays unless stripped"
    MAKER = "a maker's or program's own block, which may name the device or the place: stays under KEEP"
    PICTURE = "may hold another picture: never stays"


@dataclass(frozen=True)
class Block:
    """A piece of metadata that one file format knows, in that format's own words.

    Attributes:
        kind: Decides under which policies it stays.
        name: The segment marker or chunk type.
        content: The payload.
    """

    kind: BlockKind
    name: bytes
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Metadata:
    """All metadata of one photo; absent parts are empty.

    Attributes:
        exif: EXIF block, from its TIFF header on.
        xmp: XMP packet.
        photoshop: Photoshop image resources (``8BIM...``).
        icc: ICC profile, where the format holds it in one piece.
        blocks: Everything else.
    """

    exif: bytes = field(default=b"", repr=False)
    xmp: bytes = field(default=b"", repr=False)
    photoshop: bytes = field(default=b"", repr=False)
    icc: bytes = field(default=b"", repr=False)
    blocks: tuple[Block, ...] = ()

    def under(self, policy: MetadataPolicy) -> Metadata:
        """What ``policy`` keeps of it. Parts that cannot be read cannot be cleaned and are dropped."""
        blocks = tuple(block for block in self.blocks if _stays(block, policy))
        if policy is MetadataPolicy.STRIP:
            return Metadata(exif=_orientation_alone(self.exif), icc=self.icc, blocks=blocks)
        private = policy is MetadataPolicy.PRIVATE
        return replace(
            self,
            exif=_clean_exif(self.exif, private),
            xmp=_clean_xmp(self.xmp, private),
            photoshop=_clean_photoshop(self.photoshop),
            blocks=blocks,
        )


_JPEG_START = b"\xff\xd8\xff"
_JPEG_START_IN_BASE64 = "/9j/"

_PRIVATE_NAME = re.compile(
    r"gps|latitude|longitude|altitude|location(shown|created)|serial|ownername|imageuniqueid|makernote"
    r"|regions$|regioninfo|personinimage",
    re.IGNORECASE,
)
_PICTURE_NAME = re.compile(r"thumb|hasextendedxmp|imagesourcedata", re.IGNORECASE)


def is_private_name(name: str) -> bool:
    """Whether a property of that name says where, with which device, or who."""
    return _PRIVATE_NAME.search(name) is not None


def is_picture_name(name: str) -> bool:
    """Whether a property of that name holds a picture or points to one."""
    return _PICTURE_NAME.search(name) is not None


def _stays(block: Block, policy: MetadataPolicy) -> bool:
    if block.kind is BlockKind.PICTURE or _JPEG_START in block.content:
        return False
    if policy is MetadataPolicy.STRIP:
        return block.kind is BlockKind.COLOUR
    return block.kind is not BlockKind.MAKER or policy is MetadataPolicy.KEEP


# --- EXIF ---------------------------------------------------------------------------------------------------

_PRIVATE_TAGS = frozenset(
    {
        exif_block.GPS_DIRECTORY,
        0x927C,  # MakerNote
        0xA420,  # ImageUniqueID
        0xA430,  # CameraOwnerName
        0xA431,  # BodySerialNumber
        0xA435,  # LensSerialNumber
        *(0x830E, 0x8482, 0x85D8, 0x87AF, 0x87B0, 0x87B1, 0xA480),  # GeoTIFF and GDAL: a position on Earth
    }
)
# Raw converters' and makers' own fields: CameraSerialNumber 0xC62F, DNGPrivateData 0xC634, PrintIM, ...
_FIRST_MAKER_TAG = 0xC000
_PICTURE_TAGS = frozenset(
    {
        0x014A,  # SubIFDs
        0x0201,  # JPEGInterchangeFormat
        0x0202,
        0x02BC,  # an XMP packet inside EXIF, a second home beside the proper one
        0x8649,  # Photoshop resources, likewise
        0x935C,  # ImageSourceData: Photoshop's layers
    }
)


def _clean_exif(block: bytes, private: bool) -> bytes:
    def keep(entry: exif_block.Entry) -> bool:
        if entry.tag in _PICTURE_TAGS or _JPEG_START in entry.value:
            return False
        return not private or not (entry.tag in _PRIVATE_TAGS or entry.tag >= _FIRST_MAKER_TAG)

    try:
        return exif_block.copy_kept(block, keep)
    except ValueError:
        return b""


def _orientation_alone(block: bytes) -> bytes:
    orientation = exif_block.orientation_of(block)
    if orientation == 1:
        return b""
    entry = exif_block.integer_entry(exif_block.ORIENTATION, exif_block.SHORT, [orientation], ">")
    return exif_block.block_of([entry], {}, ">")


# --- XMP ----------------------------------------------------------------------------------------------------

_PICTURE_NAMESPACES = frozenset(
    {
        "http://ns.adobe.com/xap/1.0/g/img/",
        "http://ns.google.com/photos/1.0/image/",
        "http://ns.google.com/photos/1.0/depthmap/",
        "http://ns.google.com/photos/1.0/container/",
        "http://ns.google.com/photos/1.0/container/item/",
    }
)
_REGION_NAMESPACES = frozenset(
    {
        "http://www.metadataworkinggroup.com/schemas/regions/",
        "http://ns.microsoft.com/photo/1.2/",
    }
)


def _clean_xmp(packet: bytes, private: bool) -> bytes:
    if not packet:
        return b""
    from defusedxml import minidom as defused_minidom

    def unwanted(node: minidom.Node, value: str) -> bool:
        name, namespace = str(node.localName or node.nodeName), node.namespaceURI or ""
        if is_picture_name(name) or namespace in _PICTURE_NAMESPACES:
            return True
        if value.lstrip().startswith(_JPEG_START_IN_BASE64):
            return True
        return private and (is_private_name(name) or namespace in _REGION_NAMESPACES)

    try:
        document = defused_minidom.parseString(packet.strip(b"\0 \t\r\n"))
        _prune(document.documentElement, unwanted)
        # Comments go unread; a packet's own instructions stay.
        kept = (node for node in document.childNodes if node.nodeType != node.COMMENT_NODE)
        return "".join(node.toxml() for node in kept).encode()
    except Exception:  # expat, defusedxml, codecs and recursion limits: none of them is a packet to keep
        return b""


def _prune(element: minidom.Element, unwanted: Callable[[minidom.Node, str], bool]) -> None:
    for attribute in list(element.attributes.values()):
        declares_prefix = attribute.prefix == "xmlns" or attribute.name == "xmlns"
        if not declares_prefix and unwanted(attribute, attribute.value):
            element.removeAttributeNode(attribute)
    for child in list(element.childNodes):
        if child.nodeType == child.COMMENT_NODE:
            element.removeChild(child)
        if child.nodeType != child.ELEMENT_NODE:
            continue
        text = "".join(
            node.data for node in child.childNodes if node.nodeType in (node.TEXT_NODE, node.CDATA_SECTION_NODE)
        )
        if unwanted(child, text):
            element.removeChild(child)
        else:
            _prune(child, unwanted)


# --- Photoshop image resources ------------------------------------------------------------------------------

_SIGNATURE = b"8BIM"
# Thumbnails (Photoshop 4 and 5), and second homes of EXIF and XMP.
_UNWANTED_RESOURCES = frozenset({0x0409, 0x040C, 0x0422, 0x0423, 0x0424})


def _clean_photoshop(resources: bytes) -> bytes:
    kept = bytearray()
    position = 0
    while position + 12 <= len(resources):
        if resources[position : position + 4] != _SIGNATURE:
            return b""
        number, name_length = struct.unpack_from(">HB", resources, position + 4)
        size_at = position + 6 + name_length + 1 + (name_length + 1) % 2
        if size_at + 4 > len(resources):
            return b""
        (size,) = struct.unpack_from(">I", resources, size_at)
        end = size_at + 4 + size
        if end > len(resources):
            return b""
        content = resources[size_at + 4 : end]
        if number not in _UNWANTED_RESOURCES and _JPEG_START not in content:
            kept += resources[position:end] + bytes(size % 2)
        position = end + size % 2
    return bytes(kept)
