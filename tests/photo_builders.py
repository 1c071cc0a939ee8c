"""Photos of every kind, built in memory for the tests of `bauta.photo`."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
THUMBNAIL_MARK = b"\xff\xd8\xff\xe0THE UNPROTECTED FACE"


def scene(height=96, width=128, channels=3, dtype=np.uint8, seed=0):
    """A smooth picture with texture, like a photo: (H, W, C)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(float)
    maximum = np.iinfo(dtype).max
    planes = [0.5 + 0.3 * np.sin(rows / (7 + channel)) * np.cos(columns / (9 - channel)) for channel in range(channels)]
    picture = np.stack(planes, axis=2) + generator.normal(0, 0.02, (height, width, channels))
    return (picture.clip(0, 1) * maximum).astype(dtype)


def encode(array, format_name, mode=None, **options):
    """Pillow's encoding of an (H, W, C) array."""
    image = Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)
    if mode is not None and image.mode != mode:
        image = image.convert(mode)
    return save(image, format_name, **options)


def save(image, format_name, **options):
    buffer = io.BytesIO()
    if format_name == "JPEG" and isinstance(options.get("exif"), bytes):
        options["exif"] = b"Exif\0\0" + options["exif"]
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def heic(array, mode="RGB", **options):
    buffer = io.BytesIO()
    size = array.shape[1::-1]
    pillow_heif.encode(mode, size, array.tobytes(), buffer, enc_params={"preset": "ultrafast"}, **options)
    return buffer.getvalue()


def png_16(array, chunks=()):
    """A 16-bit PNG with extra chunks before the picture, filter 0, written by hand."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    pieces = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, content) for name, content in pieces)


def png_chunk(name, content):
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def add_png_chunks(data, *chunks):
    """A PNG with chunks inserted after its header."""
    return data[:33] + b"".join(png_chunk(name, content) for name, content in chunks) + data[33:]


def png_chunks(data):
    """Content by name of a PNG's chunks."""
    found, position = {}, 8
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        found[name] = data[position + 8 : position + 8 + length]
        position += 12 + length
    return found


def add_jpeg_segments(data, *segments):
    """A JPEG with (marker, payload) segments inserted after its start."""
    inserted = b"".join(struct.pack(">BBH", 255, marker, len(body) + 2) + body for marker, body in segments)
    return data[:2] + inserted + data[2:]


def jpeg_segments(data):
    """(marker, payload) of the segments before the first scan."""
    found, position = [], 2
    while data[position + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, position + 2)
        found.append((data[position + 1], data[position + 4 : position + 2 + length]))
        position += 2 + length
    return found


def exif(order="<", orientation=None, *, camera=True, private=True, thumbnail=True):
    """An EXIF block with what a camera writes, private things and a thumbnail in a second directory."""
    main, camera_fields = [], []
    if camera:
        main += [
            ascii_field(0x010F, "Maker"),
            ascii_field(0x0110, "Camera 1"),
            ascii_field(0x8298, "(c) A. Person"),
        ]
        camera_fields += [
            ascii_field(0x9003, "2024:05:06 07:08:09"),
            (0x829A, 5, 1, struct.pack(order + "II", 1, 250)),
            ascii_field(0xA434, "Lens 50mm"),
        ]
    if orientation is not None:
        main.append((0x0112, 3, 1, struct.pack(order + "H", orientation)))
    gps = []
    if private:
        camera_fields += [
            (0x927C, 7, 40, b"MakerNote SERIAL-IN-NOTE".ljust(40, b"\0")),
            ascii_field(0xA420, "UNIQUE-ID-0123456789"),
            ascii_field(0xA430, "OWNER-NAME"),
            ascii_field(0xA431, "SERIAL-BODY"),
            ascii_field(0xA435, "SERIAL-LENS"),
        ]
        main.append(ascii_field(0xC62F, "SERIAL-CAMERA"))
        gps = [ascii_field(0x0001, "N"), (0x0002, 5, 3, struct.pack(order + "6I", 59, 1, 20, 1, 3, 1))]
    children = [(0x8769, camera_fields)] if camera_fields else []
    children += [(0x8825, gps)] if gps else []
    return tiff_block(order, main, children, THUMBNAIL_MARK if thumbnail else b"")


def ascii_field(tag, text):
    content = text.encode() + b"\0"
    return (tag, 2, len(content), content)


def tiff_block(order, main, children=(), thumbnail=b""):
    """A TIFF structure: fields (tag, type, count, bytes) of the main and of its child directories."""
    pointers = [(tag, 4, 1, bytes(4)) for tag, _ in children]
    block = bytearray(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8))
    patches = _append_directory(block, order, [*main, *pointers])
    for tag, fields in children:
        struct.pack_into(order + "I", block, patches[tag] + 8, len(block))
        _append_directory(block, order, fields)
    if thumbnail:
        struct.pack_into(order + "I", block, patches["next"], len(block))
        fields = [(0x0201, 4, 1, bytes(4)), (0x0202, 4, 1, struct.pack(order + "I", len(thumbnail)))]
        inner = _append_directory(block, order, fields)
        struct.pack_into(order + "I", block, inner[0x0201] + 8, len(block))
        block += thumbnail
    return bytes(block)


def _append_directory(block, order, fields):
    fields = sorted(fields)
    start = len(block)
    rows, heap = bytearray(), bytearray()
    heap_start = start + 2 + 12 * len(fields) + 4
    positions = {"next": heap_start - 4}
    for index, (tag, kind, count, content) in enumerate(fields):
        positions[tag] = start + 2 + 12 * index
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place = struct.pack(order + "I", heap_start + len(heap))
            heap += content + bytes(len(content) % 2)
        rows += struct.pack(order + "HHI", tag, kind, count) + place
    block += struct.pack(order + "H", len(fields)) + rows + bytes(4) + heap
    return positions


XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:aux="http://ns.adobe.com/exif/1.0/aux/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:xmpGImg="http://ns.adobe.com/xap/1.0/g/img/"
 xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:xmpNote="http://ns.adobe.com/xmp/note/"
 xmp:CreatorTool="Darkroom 3" exif:GPSLatitude="59,20N" aux:SerialNumber="SERIAL-XMP"
 xmpNote:HasExtendedXMP="GUID-OF-DEPTH">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">A title &amp; more</rdf:li></rdf:Alt></dc:title>
<exif:GPSLongitude>18,4E</exif:GPSLongitude>
<xmp:Thumbnails><rdf:Alt><rdf:li><xmpGImg:image>/9j/4THUMB</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>
<mwg-rs:Regions><mwg-rs:RegionList><rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="PERSON-NAME"/></rdf:li>
</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def xmp_packet(properties=b"", attributes=b"", after=b""):
    """A packet with properties of every namespace that the tests use."""
    prefixes = b" ".join(b'xmlns:%s="%s"' % (prefix.encode(), uri.encode()) for prefix, uri in NAMESPACES.items())
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" ' + prefixes + b" " + attributes + b">" + properties + b"</rdf:Description>"
        b"</rdf:RDF></x:xmpmeta>" + after
    )


NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "MicrosoftPhoto": "http://ns.microsoft.com/photo/1.0/",
    "MP": "http://ns.microsoft.com/photo/1.2/",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "mediapro": "http://ns.iview-multimedia.com/mediapro/1.0/",
    "acdsee": "http://ns.acdsee.com/iptc/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "y": "urn:y",
}


def xmp_list(name, *items, kind=b"Bag"):
    """A property that is a list."""
    entries = b"".join(b"<rdf:li>" + item + b"</rdf:li>" for item in items)
    return b"<%s><rdf:%s>%s</rdf:%s></%s>" % (name, kind, entries, kind, name)


def photoshop_resource(number, content):
    return b"8BIM" + struct.pack(">HBBI", number, 0, 0, len(content)) + content + bytes(len(content) % 2)


def iptc(number, value, record=2):
    """One IPTC dataset."""
    size = struct.pack(">H", len(value)) if len(value) < 0x8000 else struct.pack(">HI", 0x8004, len(value))
    return bytes([0x1C, record, number]) + size + value


def photoshop_resources():
    return (
        photoshop_resource(0x0404, iptc(120, b"CAPTION IPTC"))
        + photoshop_resource(0x040C, b"thumb-5")
        + photoshop_resource(0x0409, b"thumb-4")
    )
