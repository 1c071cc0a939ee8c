"""In private only what is known to be harmless stays; names, places, ids, paths and prompts go from all homes."""

from __future__ import annotations

import io
import json
import struct
import zlib

import pytest
from PIL import Image

from bauta.photo import MetadataPolicy, read_photo
from photo_builders import (
    PROFILE,
    add_jpeg_segments,
    add_png_chunks,
    ascii_field,
    encode,
    heic,
    iptc,
    photoshop_resource,
    png_chunks,
    scene,
    tiff_block,
    xmp_list,
    xmp_packet,
)

PRIVATE, KEEP, STRIP = MetadataPolicy.PRIVATE, MetadataPolicy.KEEP, MetadataPolicy.STRIP


def jpeg(*segments, **options):
    return add_jpeg_segments(encode(scene(24, 32), "JPEG", **options), *segments)


def png(*chunks, **options):
    return add_png_chunks(encode(scene(24, 32), "PNG", **options), *chunks)


def datasets(*entries):
    return (0xED, b"Photoshop 3.0\0" + photoshop_resource(0x0404, b"".join(iptc(*entry) for entry in entries)))


def wide(tag, text):
    content = text.encode("utf-16-le") + b"\0\0"
    return (tag, 1, len(content), content)


def private(data):
    return read_photo(data).encode()


REGION = (
    b'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource">'
    b"<mwg-rs:Name>%s</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type></rdf:li></rdf:Bag></mwg-rs:RegionList>"
    b"</mwg-rs:Regions>"
)
MICROSOFT_REGION = (
    b'<MP:RegionInfo rdf:parseType="Resource"><MPReg:Regions><rdf:Bag><rdf:li MPReg:PersonDisplayName="%s"/>'
    b"</rdf:Bag></MPReg:Regions></MP:RegionInfo>"
)
NAME = b"Ada Lovelace"
TAGS = {  # homes of a name that a region or a people tag gives
    "dc:subject": xmp_list(b"dc:subject", NAME, b"garden"),
    "lr": xmp_list(b"lr:hierarchicalSubject", b"People|" + NAME, b"Plants|garden"),
    "lr flat": xmp_list(b"lr:weightedFlatSubject", NAME, b"garden"),
    "digiKam": xmp_list(b"digiKam:TagsList", b"Family/Close/" + NAME, b"garden", kind=b"Seq"),
    "MicrosoftPhoto": xmp_list(b"MicrosoftPhoto:LastKeywordXMP", b"People/" + NAME, b"garden"),
    "mediapro": xmp_list(b"mediapro:CatalogSets", b"Personen|" + NAME, b"garden"),
    "acdsee": xmp_list(b"acdsee:keywords", NAME, b"garden"),
    "supplemental": xmp_list(b"photoshop:SupplementalCategories", NAME, b"garden"),
    "other spelling": xmp_list(b"dc:subject", b"ada-lovelace", b"ADA_LOVELACE", b"garden"),
    "first name": xmp_list(b"dc:subject", b"Ada", b"garden"),
    "last name first": xmp_list(b"dc:subject", b"Lovelace, Ada", b"garden"),
    "with other words": xmp_list(b"dc:subject", b"birthday of Ada Lovelace", b"garden"),
}


@pytest.mark.parametrize("home", TAGS)
@pytest.mark.parametrize("source", [REGION, MICROSOFT_REGION])
def test_a_persons_name_goes_from_all_keywords_and_other_keywords_stay(source, home):
    result = private(jpeg(xmp=xmp_packet(source % NAME + TAGS[home])))
    assert b"lovelace" not in result.lower()
    assert b">Ada" not in result
    assert b"garden" in result


REGIONS_ONLY = xmp_packet(REGION % NAME)
NOTHING_BUT_NAMES = {
    "title": lambda text: jpeg(xmp=xmp_packet(REGION % NAME + xmp_list(b"dc:title", text, kind=b"Alt"))),
    "headline": lambda text: jpeg(
        xmp=xmp_packet(REGION % NAME + b"<photoshop:Headline>" + text + b"</photoshop:Headline>")
    ),
    "label": lambda text: jpeg(xmp=xmp_packet(REGION % NAME + b"<xmp:Label>" + text + b"</xmp:Label>")),
    "iptc": lambda text: jpeg(datasets((5, text)), xmp=REGIONS_ONLY),
    "windows": lambda text: jpeg(exif=tiff_block("<", [wide(0x9C9B, text.decode())]), xmp=REGIONS_ONLY),
    "comment": lambda text: jpeg((0xFE, text), xmp=REGIONS_ONLY),
    "png": lambda text: png((b"tEXt", b"Title\0" + text), (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + REGIONS_ONLY)),
}


@pytest.mark.parametrize("home", NOTHING_BUT_NAMES)
def test_a_text_of_nothing_but_names_goes_and_a_caption_with_one_stays(home):
    for text in (NAME, b"ADA LOVELACE", b"Lovelace and Ada"):
        assert b"lovelace" not in private(NOTHING_BUT_NAMES[home](text)).replace(b"\0", b"").lower()
    text = b"Ada Lovelace in the garden"
    assert text in private(NOTHING_BUT_NAMES[home](text)).replace(b"\0", b"")


@pytest.mark.parametrize(
    "text",
    [
        "https://photos.example/originals/991.jpg",
        "www.example.org/991",
        "Taken at 52.520008, 13.404954",
        "52°31'12.0\"N 13°24'18.0\"E, in the evening",
        "geo:52.52,13.40",
    ],
)
@pytest.mark.parametrize("home", ["comment", "iptc", "png"])
def test_a_link_and_a_position_are_no_caption(home, text):
    assert text.encode() not in private(NOTHING_BUT_NAMES[home](text.encode()))
    kept = "ca. 3.5, 4.25 m away, 20 °C, www.example.org".encode()
    assert kept in private(NOTHING_BUT_NAMES[home](kept))


def test_a_copyright_notice_may_name_its_owner():
    block = tiff_block("<", [ascii_field(0x013B, "Grace H"), ascii_field(0x8298, "Grace H")])
    assert b"Grace H" in private(jpeg(exif=block))


PEOPLE_ONLY = {
    "region of the iptc": b'<Iptc4xmpExt:ImageRegion><rdf:Bag><rdf:li rdf:parseType="Resource"><Iptc4xmpExt:Name>'
    b'<rdf:Alt><rdf:li xml:lang="x-default">Ada Lovelace</rdf:li></rdf:Alt></Iptc4xmpExt:Name></rdf:li></rdf:Bag>'
    b"</Iptc4xmpExt:ImageRegion>" + xmp_list(b"dc:subject", NAME),
    "people tag alone": xmp_list(b"lr:hierarchicalSubject", b"People|" + NAME) + xmp_list(b"dc:subject", NAME),
    "person in image": xmp_list(b"Iptc4xmpExt:PersonInImage", NAME) + xmp_list(b"dc:subject", NAME),
    "mediapro people": xmp_list(b"mediapro:People", NAME) + xmp_list(b"dc:subject", NAME),
    "acdsee categories": xmp_list(b"lr:hierarchicalSubject", b"Who|" + NAME)
    + b"<acdsee:categories>&lt;Category Assigned='1'&gt;Ada Lovelace&lt;/Category&gt;</acdsee:categories>",
}


@pytest.mark.parametrize("home", PEOPLE_ONLY)
def test_people_tags_without_regions_go_too(home):
    photo = read_photo(jpeg(xmp=xmp_packet(PEOPLE_ONLY[home])))
    assert b"Lovelace" not in photo.encode()
    assert photo.removed()["names of people"] >= 2
    assert b"Lovelace" in photo.encode(metadata=KEEP)


def test_a_name_from_xmp_goes_from_iptc_and_windows_keywords():
    block = tiff_block("<", [wide(0x9C9E, "Ada Lovelace;garden;Mathematik")])
    packet = xmp_packet(REGION % NAME)
    result = private(jpeg(datasets((25, NAME), (25, b"garden"), (20, b"ada lovelace")), exif=block, xmp=packet))
    assert b"ovelace" not in result
    assert b"ovelace" not in result.replace(b"\0", b"")
    assert b"\x1c\x02\x19\x00\x06garden" in result
    assert Image.open(io.BytesIO(result)).getexif()[0x9C9E].decode("utf-16-le").strip("\0") == "garden;Mathematik"


@pytest.mark.parametrize("carrier", ["png", "webp", "tiff", "heic", "avif"])
def test_names_go_in_every_format(carrier):
    packet = xmp_packet(REGION % NAME + TAGS["lr"])
    build = {
        "png": lambda: png((b"tEXt", b"XML:com.adobe.xmp\0" + packet)),
        "webp": lambda: encode(scene(), "WEBP", xmp=packet),
        "tiff": lambda: encode(scene(), "TIFF", tiffinfo={700: packet}),
        "heic": lambda: heic(scene(), quality=50, xmp=packet),
        "avif": lambda: encode(scene(), "AVIF", xmp=packet),
    }
    result = private(build[carrier]())
    assert b"Lovelace" not in result
    assert b"Plants|garden" in result


PLACES = {
    "xmp city": xmp_packet(attributes=b'photoshop:City="NOWHERE" photoshop:State="NOWHERE"'),
    "xmp country": xmp_packet(b"<photoshop:Country>NOWHERE</photoshop:Country>"),
    "xmp location": xmp_packet(attributes=b'Iptc4xmpCore:Location="NOWHERE" Iptc4xmpCore:CountryCode="NOWHERE"'),
    "xmp location created": xmp_packet(
        b'<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li rdf:parseType="Resource"><Iptc4xmpExt:City>NOWHERE'
        b"</Iptc4xmpExt:City></rdf:li></rdf:Bag></Iptc4xmpExt:LocationCreated>"
    ),
    "xmp coverage": xmp_packet(b"<dc:coverage>NOWHERE</dc:coverage>"),
    "xmp gps": xmp_packet(attributes=b'exif:GPSLatitude="NOWHERE" exif:GPSDestLongitude="NOWHERE"'),
    "place keywords": xmp_packet(xmp_list(b"lr:hierarchicalSubject", b"Places|NOWHERE|NOWHERE 2")),
    "keyword of a known place": xmp_packet(
        xmp_list(b"dc:subject", b"nowhere", b"NOWHERE"), b'photoshop:City="Nowhere"'
    ),
}


@pytest.mark.parametrize("home", PLACES)
def test_places_in_xmp_go(home):
    photo = read_photo(jpeg(xmp=PLACES[home]))
    assert b"nowhere" not in photo.encode().lower()
    assert photo.removed()["positions and places"] >= 1
    assert b"NOWHERE" in photo.encode(metadata=KEEP)


@pytest.mark.parametrize("number", [26, 27, *range(90, 102)])
def test_places_in_iptc_go(number):
    result = private(
        jpeg(datasets((number, b"NOWHERE"), (25, b"NOWHERE") if number in (90, 92, 95, 101) else (60, b"1")))
    )
    assert b"NOWHERE" not in result


def test_iptc_in_a_tiff_field_is_cleaned():
    entries = iptc(120, b"A caption") + iptc(90, b"NOWHERE") + iptc(80, b"A. Uthor") + iptc(202, b"\xff\xd8\xff\xe0PIC")
    for content in (entries, swapped(entries)):
        result = private(encode(scene(), "TIFF", tiffinfo={33723: content}))
        assert b"A caption" in result
        assert b"NOWHERE" not in result
        assert b"Uthor" not in result
        assert b"PIC" not in result


def swapped(data):
    data += bytes(-len(data) % 4)
    return struct.pack(f"<{len(data) // 4}I", *struct.unpack(f">{len(data) // 4}I", data))


IDENTIFIERS = {
    "document ids": b'xmpMM:DocumentID="ID-OF-IT" xmpMM:InstanceID="ID-OF-IT" xmpMM:OriginalDocumentID="ID-OF-IT"',
    "versions": b'xmpMM:VersionID="ID-OF-IT"',
    "identifier": b'dc:identifier="ID-OF-IT"',
    "provenance": b'dcterms:provenance="https://example.org/ID-OF-IT"',
    "statement": b'xmpRights:WebStatement="https://example.org/ID-OF-IT"',
    "raw file": b'y:RawFileName="ID-OF-IT.CR3"',
    "transmission": b'photoshop:TransmissionReference="ID-OF-IT"',
    "registry": b'Iptc4xmpExt:DigImageGUID="ID-OF-IT"',
    "source": b'dc:source="ID-OF-IT" photoshop:Source="ID-OF-IT"',
    "serial": b'aux:SerialNumber="ID-OF-IT" aux:LensSerialNumber="ID-OF-IT" aux:ImageNumber="ID-OF-IT"',
}


@pytest.mark.parametrize("kind", IDENTIFIERS)
def test_ids_and_links_go(kind):
    photo = read_photo(jpeg(xmp=xmp_packet(attributes=IDENTIFIERS[kind])))
    assert b"ID-OF-IT" not in photo.encode()
    assert b"ID-OF-IT" in photo.encode(metadata=KEEP)


def test_a_document_id_in_about_goes():
    packet = xmp_packet(b"<xmp:Label>red</xmp:Label>").replace(b'rdf:about=""', b'rdf:about="uuid:ID-OF-IT"')
    result = private(jpeg(xmp=packet))
    assert b"ID-OF-IT" not in result
    assert b"<xmp:Label>red</xmp:Label>" in result


def test_ids_in_lists_of_ingredients_and_history_go():
    packet = xmp_packet(
        b'<xmpMM:Ingredients><rdf:Bag><rdf:li stRef:filePath="C:\\Users\\ada\\x.jpg" stRef:documentID="ID-OF-IT"/>'
        b'</rdf:Bag></xmpMM:Ingredients><xmpMM:DerivedFrom stRef:instanceID="ID-OF-IT"/>'
        b"<photoshop:DocumentAncestors><rdf:Bag><rdf:li>ID-OF-IT</rdf:li></rdf:Bag></photoshop:DocumentAncestors>"
    )
    photo = read_photo(jpeg(xmp=packet))
    assert b"ID-OF-IT" not in photo.encode()
    assert b"ada" not in photo.encode()
    assert photo.removed() == {"document ids and links": 3}


PATHS = [
    "/home/ada/pictures/x.jpg",
    "/Users/ada/Desktop",
    "C:\\Users\\ada\\x.jpg",
    "D:/photos/ada/x.png",
    '{"a": "C:\\\\Users\\\\ada"}',
    "file:///home/ada/x",
    "\\\\server\\ada\\x.jpg",
    "made in ~/ada/x",
    "/storage/emulated/0/DCIM/ada.jpg",
    "smb://nas/ada",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_go_wherever_they_stand(path):
    packet = xmp_packet(b"<xmp:CreatorTool>" + path.encode() + b"</xmp:CreatorTool><xmp:Label>red</xmp:Label>")
    block = tiff_block("<", [ascii_field(0x0131, path), ascii_field(0x010D, path), ascii_field(0x0110, "Camera 1")])
    data = jpeg((0xFE, path.encode()), datasets((65, path.encode()[:60]), (120, b"A caption")), exif=block, xmp=packet)
    result = private(data)
    assert b"ada" not in result
    for kept in (b"red", b"Camera 1", b"A caption"):
        assert kept in result
    assert b"ada" not in private(png((b"tEXt", b"Software\0" + path.encode()), (b"tEXt", b"File\0" + path.encode())))


@pytest.mark.parametrize(
    "text", ["and/or", "see https://example.org/home/page", "1/250 s at f/2.8", "R:G:B", "a: b/c", "the /r/pics people"]
)
def test_what_only_looks_like_a_path_stays(text):
    assert text.encode() in private(png((b"tEXt", b"Description\0" + text.encode())))


OWNERS = {
    "artist": lambda: jpeg(exif=tiff_block("<", [ascii_field(0x013B, "GRACE H"), ascii_field(0x0110, "Camera 1")])),
    "host computer": lambda: jpeg(exif=tiff_block("<", [ascii_field(0x013C, "GRACE H"), ascii_field(0x0110, "C")])),
    "windows author": lambda: jpeg(exif=tiff_block("<", [wide(0x9C9D, "GRACE H")])),
    "owner": lambda: jpeg(exif=tiff_block("<", [], [(0x8769, [ascii_field(0xA430, "GRACE H")])])),
    "photographer": lambda: jpeg(exif=tiff_block("<", [], [(0x8769, [ascii_field(0xA437, "GRACE H")])])),
    "creator": lambda: jpeg(xmp=xmp_packet(xmp_list(b"dc:creator", b"GRACE H", kind=b"Seq"))),
    "owner in xmp": lambda: jpeg(xmp=xmp_packet(attributes=b'aux:OwnerName="GRACE H" tiff:Artist="GRACE H"')),
    "rights owner": lambda: jpeg(xmp=xmp_packet(xmp_list(b"xmpRights:Owner", b"GRACE H"))),
    "writer": lambda: jpeg(xmp=xmp_packet(attributes=b'photoshop:CaptionWriter="GRACE H" photoshop:Credit="GRACE H"')),
    "contact": lambda: jpeg(
        xmp=xmp_packet(b'<Iptc4xmpCore:CreatorContactInfo y:mail="GRACE H" rdf:parseType="Resource"/>')
    ),
    "by-line": lambda: jpeg(datasets((80, b"GRACE H"), (85, b"GRACE H"), (122, b"GRACE H"), (110, b"GRACE H"))),
    "keyword of the owner": lambda: jpeg(datasets((80, b"GRACE H"), (25, b"grace h"))),
    "png author": lambda: png((b"tEXt", b"Author\0GRACE H"), (b"iTXt", b"Artist" + bytes(5) + b"GRACE H")),
}


@pytest.mark.parametrize("home", OWNERS)
def test_authors_and_owners_go(home):
    result = private(OWNERS[home]())
    assert b"grace" not in result.lower()
    assert b"g\0r\0a" not in result.lower()


PROMPTS = {
    "parameters": (b"tEXt", b"parameters\0portrait of ADA, <lora:ada:1>"),
    "prompt": (b"tEXt", b"prompt\0" + json.dumps({"1": {"inputs": {"image": "ADA.png"}}}).encode()),
    "workflow": (b"iTXt", b"workflow" + bytes(5) + b'{"nodes": ["ADA"]}'),
    "sd-metadata": (b"zTXt", b"sd-metadata\0\0" + zlib.compress(b'{"prompt": "ADA"}')),
    "comment of a program": (b"tEXt", b'Comment\0{"prompt": "ADA in the garden", "steps": 28}'),
    "description of a program": (
        b"tEXt",
        b"Description\0ADA\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 5",
    ),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompts_go(kind):
    photo = read_photo(png(PROMPTS[kind]))
    assert b"ADA" not in photo.encode()
    assert photo.removed() == {"prompts and program texts": 1}
    assert PROMPTS[kind][1] in png_chunks(photo.encode(metadata=KEEP)).values()


def test_a_caption_that_repeats_the_prompt_goes_and_another_stays():
    comment = (b"tEXt", b'Comment\0{"prompt": "ADA in the garden", "steps": 28}')
    assert b"ADA" not in private(png((b"tEXt", b"Description\0ADA in the garden"), comment))
    assert b"Summer" in private(png((b"tEXt", b"Description\0Summer in the garden"), comment))


@pytest.mark.parametrize(
    "field",
    [
        (0x010E, 'Workflow: {"nodes": "ADA"}'),
        (0x010F, 'Prompt:{"1": "ADA"}'),
        (0x0131, "ADA\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"),
    ],
)
def test_prompts_in_exif_go(field):
    assert b"ADA" not in private(jpeg(exif=tiff_block("<", [ascii_field(*field)])))


CLAIMS = [
    b'GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" GCamera:MotionPhotoPresentationTimestampUs="0"',
    b'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="2814"',
    b'hdrgm:Version="1.0" hdrgm:GainMapMax="2"',
    b'GDepth:Format="RangeInverse" GDepth:Mime="image/jpeg"',
]


@pytest.mark.parametrize("policy", [PRIVATE, KEEP])
@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_about_what_is_gone_go_with_it(claim, policy):
    names = [part.split(b"=")[0] for part in claim.split()]
    directory = b'<Container:Directory><rdf:Seq><rdf:li Container:Item="MotionPhoto"/></rdf:Seq></Container:Directory>'
    photo = read_photo(jpeg(xmp=xmp_packet(directory + b"<xmp:Label>red</xmp:Label>", claim)) + b"\0\0\0\x18ftypmp42")
    result = photo.encode(metadata=policy)
    assert [name for name in [*names, b"Container:Directory", b"ftyp"] if name in result] == []
    assert b"<xmp:Label>red</xmp:Label>" in result
    assert photo.removed(policy)["data after the picture"] == 1


CAPTION = "Midsommar på ön: «Ada» & vänner, kl. 12/24 – 100 % sol ☀ 日本語 " + "och så vidare " * 300
ENTITIES = CAPTION.replace("&", "&amp;").encode()


CAPTIONED = {
    "exif description": lambda: jpeg(exif=tiff_block("<", [ascii_field(0x010E, CAPTION)])),
    "exif comment": lambda: jpeg(exif=tiff_block("<", [], [(0x8769, [comment(CAPTION)])])),
    "windows title": lambda: jpeg(exif=tiff_block("<", [wide(0x9C9B, CAPTION)])),
    "jpeg comment": lambda: jpeg((0xFE, CAPTION.encode())),
    "iptc": lambda: jpeg(datasets((120, CAPTION.encode()), (105, CAPTION.encode()), (116, CAPTION.encode()))),
    "xmp description": lambda: jpeg(
        xmp=xmp_packet(
            b'<dc:description><rdf:Alt><rdf:li xml:lang="sv">%s</rdf:li></rdf:Alt></dc:description>' % ENTITIES
        )
    ),
    "xmp attribute": lambda: jpeg(xmp=xmp_packet(attributes=b'photoshop:Headline="' + ENTITIES + b'"')),
    "png text": lambda: png((b"iTXt", b"Description" + bytes(5) + CAPTION.encode())),
    "png packed text": lambda: png((b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(CAPTION.encode()))),
    "tiff": lambda: encode(scene(), "TIFF", tiffinfo={270: CAPTION.encode()}),
}


def comment(text):
    content = b"UNICODE\0" + text.encode("utf-16-le")
    return (0x9286, 7, len(content), content)


@pytest.mark.parametrize("policy", [PRIVATE, KEEP])
@pytest.mark.parametrize("home", CAPTIONED)
def test_captions_stay_whole(home, policy):
    photo = read_photo(CAPTIONED[home]())
    result = photo.encode(metadata=policy)
    homes = [CAPTION.encode(), ENTITIES, CAPTION.encode("utf-16-le"), zlib.compress(CAPTION.encode())]
    assert any(home in result for home in homes)
    assert photo.removed(policy) == {}


def test_what_is_known_stays_and_is_not_counted():
    packet = xmp_packet(
        xmp_list(b"dc:title", b"A title", kind=b"Alt")
        + b'<exif:Flash rdf:parseType="Resource"><exif:Fired>True</exif:Fired></exif:Flash>',
        b'xmp:CreateDate="2024-05-06T07:08:09" tiff:Model="Camera 1" xmp:Rating="4" aux:Lens="50mm"',
    )
    photo = read_photo(jpeg(xmp=packet, icc_profile=PROFILE, dpi=(240, 240)))
    assert photo.removed() == {}
    for text in (b"A title", b"Fired>True", b"2024-05-06T07:08:09", b"Camera 1", b'xmp:Rating="4"', b"50mm"):
        assert text in photo.encode()
    assert b"urn:y" not in photo.encode()  # a prefix that nothing uses


def test_unknown_parts_inside_what_stays_go():
    packet = xmp_packet(
        b'<dc:description y:a="SECRET"><rdf:Alt y:b="SECRET"><rdf:li xml:lang="en" rdf:resource="SECRET">kept'
        b"<y:c>SECRET</y:c></rdf:li><y:d>SECRET</y:d></rdf:Alt></dc:description><y:e>SECRET</y:e>"
        + xmp_list(b"dc:subject", b"garden<y:f>SECRET</y:f>")
    ).replace(b"</rdf:RDF>", b"<y:Typed xmlns:y='urn:y'>SECRET</y:Typed></rdf:RDF><y:g xmlns:y='u'>SECRET</y:g>")
    result = private(jpeg(xmp=packet))
    assert b"SECRET" not in result
    assert b"kept" in result
    assert b"garden" in result


def test_names_of_resources_and_rests_of_strings_do_not_carry_anything():
    resource = b"8BIM" + struct.pack(">HB", 0x0404, 6) + b"SECRET" + b"\0"
    body = iptc(120, b"A caption")
    resource += struct.pack(">I", len(body)) + body + bytes(len(body) % 2)
    result = private(jpeg((0xED, b"Photoshop 3.0\0" + resource)))
    assert b"A caption" in result
    assert b"SECRET" not in result


def test_stripping_leaves_nothing_of_any_of_it():
    packet = xmp_packet(REGION % b"S3CR3T" + TAGS["lr"], b'photoshop:City="NOWHERE"')
    data = jpeg((0xFE, b"S3CR3T"), datasets((120, b"S3CR3T")), xmp=packet, icc_profile=PROFILE)
    photo = read_photo(data)
    result = photo.encode(metadata=STRIP)
    assert b"S3CR3T" not in result
    assert b"xmp" not in result
    assert Image.open(io.BytesIO(result)).info["icc_profile"] == PROFILE
    assert list(photo.removed(STRIP)) == ["everything but the colour profile"]
