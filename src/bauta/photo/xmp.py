"""Which XMP properties stay (XMP specification parts 1 and 2, EXIF 2.32 for XMP, IPTC Photo Metadata 2023.1).

In private a property stays when its namespace and name are listed here and its value is a text of the right kind;
under the other policy that reads XMP, when it neither holds a picture nor speaks of one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bauta.photo.cleaning import SEARCHED, Cleaning, Removed, against_text, is_readable, note, words

if TYPE_CHECKING:
    from xml.dom.minidom import Attr, Element

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"
_META = "adobe:ns:meta/"
_DC = "http://purl.org/dc/elements/1.1/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_RIGHTS = "http://ns.adobe.com/xap/1.0/rights/"
_MM = "http://ns.adobe.com/xap/1.0/mm/"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_EXIF_EX = "http://cipa.jp/exif/1.0/"
_AUX = "http://ns.adobe.com/exif/1.0/aux/"
_PHOTOSHOP = "http://ns.adobe.com/photoshop/1.0/"
_IPTC_CORE = "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
_DIGIKAM = "http://www.digikam.org/ns/1.0/"
_MICROSOFT = "http://ns.microsoft.com/photo/1.0/"
_MEDIAPRO = "http://ns.iview-multimedia.com/mediapro/1.0/"
_ACDSEE = "http://ns.acdsee.com/iptc/1.0/"

# Texts that somebody wrote to be read with the photo; they stay at any length.
_CAPTIONS: dict[str, frozenset[str]] = {
    _DC: frozenset({"title", "description", "rights"}),
    _RIGHTS: frozenset({"UsageTerms"}),
    _TIFF: frozenset({"ImageDescription", "Copyright"}),
    _EXIF: frozenset({"UserComment"}),
    _PHOTOSHOP: frozenset({"Headline"}),
    _IPTC_CORE: frozenset({"AltTextAccessibility", "ExtDescrAccessibility"}),
    _ACDSEE: frozenset({"caption", "notes"}),
}
_NOTICES = {(_DC, "rights"), (_TIFF, "Copyright"), (_RIGHTS, "UsageTerms")}  # whose they are, they may say
# Trees and lists of keywords; names of people, places and owners go from them.
_KEYWORDS: dict[str, frozenset[str]] = {
    _DC: frozenset({"subject"}),
    _LIGHTROOM: frozenset({"hierarchicalSubject", "weightedFlatSubject"}),
    _DIGIKAM: frozenset({"TagsList"}),
    _MICROSOFT: frozenset({"LastKeywordXMP", "LastKeywordIPTC"}),
    _MEDIAPRO: frozenset({"CatalogSets"}),
    _ACDSEE: frozenset({"keywords"}),
    _PHOTOSHOP: frozenset({"SupplementalCategories"}),
}
# Numbers, dates, codes and the names of cameras, lenses and programs.
_PLAIN: dict[str, frozenset[str]] = {
    _DC: words("format type language date"),
    _XMP: words("CreateDate ModifyDate MetadataDate CreatorTool Rating Label"),
    _RIGHTS: frozenset({"Marked"}),
    _TIFF: words(
        "ImageWidth ImageLength BitsPerSample Compression PhotometricInterpretation Orientation SamplesPerPixel "
        "PlanarConfiguration YCbCrSubSampling YCbCrPositioning XResolution YResolution ResolutionUnit "
        "WhitePoint PrimaryChromaticities YCbCrCoefficients ReferenceBlackWhite DateTime Make Model Software"
    ),
    _EXIF: words(
        "ExifVersion FlashpixVersion ColorSpace Gamma ComponentsConfiguration CompressedBitsPerPixel PixelXDimension "
        "PixelYDimension DateTimeOriginal DateTimeDigitized ExposureTime FNumber ExposureProgram ISOSpeedRatings "
        "ShutterSpeedValue ApertureValue BrightnessValue ExposureBiasValue MaxApertureValue SubjectDistance "
        "MeteringMode LightSource Flash Fired Return Mode Function RedEyeMode FocalLength SubjectArea FlashEnergy "
        "FocalPlaneXResolution FocalPlaneYResolution FocalPlaneResolutionUnit SubjectLocation ExposureIndex "
        "SensingMethod FileSource SceneType CustomRendered ExposureMode WhiteBalance DigitalZoomRatio "
        "FocalLengthIn35mmFilm SceneCaptureType GainControl Contrast Saturation Sharpness SubjectDistanceRange "
        "CompositeImage SubSecTime SubSecTimeOriginal SubSecTimeDigitized OffsetTime OffsetTimeOriginal "
        "OffsetTimeDigitized"
    ),
    _EXIF_EX: words(
        "Gamma PhotographicSensitivity SensitivityType StandardOutputSensitivity RecommendedExposureIndex ISOSpeed "
        "ISOSpeedLatitudeyyy ISOSpeedLatitudezzz LensSpecification LensMake LensModel InteroperabilityIndex "
        "CompositeImage OffsetTime OffsetTimeOriginal OffsetTimeDigitized"
    ),
    _AUX: words("Lens LensInfo LensID ApproximateFocusDistance FlashCompensation"),
    _PHOTOSHOP: words("ColorMode ICCProfile DateCreated Urgency Category"),
    _IPTC_CORE: words("SubjectCode Scene IntellectualGenre"),
    _IPTC_EXT: frozenset({"DigitalSourceType"}),
    _DIGIKAM: words("ColorLabel PickLabel"),
    _MICROSOFT: frozenset({"Rating"}),
    _ACDSEE: words("rating datetime"),
}
_LONGEST_PLAIN = 256  # characters
_LARGEST = 4 * 2**20  # bytes; the histories of long edited pictures take one
_MOST_ELEMENTS = 20_000  # and values of attributes
_DEEPEST = 50  # elements within each other; properties of structures of lists take ten
_CONTAINERS = frozenset({"Alt", "Bag", "Seq", "li", "Description", "value"})

# What holds pictures or films or speaks of them, under every policy.
_PICTURE_NAMESPACES = (
    "http://ns.adobe.com/xap/1.0/g/img/",
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/HDRGainMap/",
    "http://ns.apple.com/pixeldatainfo/",
    "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/1.0/depthmap/",
    "http://ns.google.com/photos/1.0/focus/",
    "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/dd/",
)
_CLAIM_NAMESPACES = (
    "http://ns.adobe.com/hdr-gain-map/",
    "http://ns.apple.com/",
    "http://ns.google.com/photos/1.0/container/",
    "http://ns.google.com/photos/dd/",
)
_PICTURE_NAME = re.compile(
    r"thumb|preview|hasextendedxmp|imagesourcedata|motion_?photo|micro_?video|live_?photo|video(?:length|offset|uri)"
    r"|gain_?map|depth_?(?:map|image|data)|embedded_?(?:image|picture|video)|snapshot",
    re.IGNORECASE,
)
_CLAIM_NAME = re.compile(
    r"hasextended|motion_?photo|micro_?video|live_?photo|video(?:length|offset)|gain_?map", re.IGNORECASE
)

_PERSON_FIELDS = words("PersonDisplayName PersonName PersonInImage People Personality Name person")
_PERSON_HOMES = re.compile(
    r"region|personinimage|mediapro|expressionmedia|microsoft\.com/photo/1\.2|acdsee|gettyimages|prismstandard",
    re.IGNORECASE,
)
_PLACE_NAME = re.compile(
    r"gps|latitude|longitude|altitude|location|^(?:city|state|country|provincestate|sublocation|coverage"
    r"|countryname|countrycode|worldregion|event)$",
    re.IGNORECASE,
)
_OWNER_NAME = re.compile(r"creator$|^artist$|owner|author|captionwriter|contributor|^credit$|contact", re.IGNORECASE)
_DEVICE_NAME = re.compile(r"serial|makernote|imagenumber|firmware", re.IGNORECASE)
_LINK_NAME = re.compile(
    r"id$|identifier|provenance|statement|manifest|derivedfrom|history|ingredients|ancestors|source"
)
_PACKET = (b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n', b'\n<?xpacket end="w"?>')
_LANGUAGE = re.compile(r"[A-Za-z0-9-]{1,40}")


def is_picture_name(name: str) -> bool:
    """Whether a property or keyword of that name holds a picture or points to one."""
    return _PICTURE_NAME.search(name) is not None


def note_names(packet: bytes, cleaning: Cleaning) -> None:
    """Learns the names of people, places and owners that the packet's properties give."""
    root = _parsed(packet)
    if root is None:
        return
    for element in root.getElementsByTagName("*"):
        fields = [(_name_of(attribute), attribute.value) for attribute in _attributes(element)]
        fields.append((_name_of(element), _own_text(element)))
        if element.namespaceURI == _RDF and element.localName == "li":
            home = _property_above(element)
            fields.append((home, _own_text(element)))
        for (namespace, name), text in fields:
            if not text.strip():
                continue
            if name in _KEYWORDS.get(namespace, ()):
                cleaning.note_keyword(text)
            elif name in _PERSON_FIELDS and _PERSON_HOMES.search(namespace + _ancestry(element)):
                note(cleaning.people, [text])
            elif name in ("City", "State", "Country", "Location", "Sublocation", "ProvinceState", "CountryName"):
                note(cleaning.places, [text])
            elif name in ("creator", "Artist", "OwnerName", "CameraOwnerName", "CaptionWriter", "Owner"):
                note(cleaning.owners, [text])


def clean_xmp(packet: bytes, cleaning: Cleaning) -> bytes:
    """The packet with the properties that stay; nothing when none does or it cannot be read."""
    if not packet:
        return b""
    root = _parsed(packet)
    if root is None:
        cleaning.drop(Removed.UNREADABLE)
        return b""
    if not cleaning.private:
        _drop_pictures(root, cleaning)
    elif not _keep_known(root, cleaning):
        return b""
    return _PACKET[0] + root.toxml().encode() + _PACKET[1]


def _parsed(packet: bytes) -> Element | None:
    from defusedxml import minidom

    if len(packet) > _LARGEST or packet.count(b'="') + packet.count(b"='") > _MOST_ELEMENTS:
        return None
    try:
        document = minidom.parseString(packet.strip(b"\0 \t\r\n"))
        root: Element | None = document.documentElement
        if root is None or _is_deeper(root, _DEEPEST) or len(root.getElementsByTagName("*")) > _MOST_ELEMENTS:
            return None
        return root
    except Exception:  # expat, defusedxml, codecs and recursion limits: none of them is a packet to keep
        return None


def _is_deeper(element: Element, depth: int) -> bool:
    if depth == 0:
        return True
    return any(_is_deeper(child, depth - 1) for child in _elements(element))


def _name_of(node: Element | Attr) -> tuple[str, str]:
    return node.namespaceURI or "", str(node.localName or node.nodeName)


def _attributes(element: Element) -> list[Attr]:
    """Those that are properties or language tags, not declarations of prefixes."""
    return [each for each in element.attributes.values() if each.prefix != "xmlns" and each.name != "xmlns"]


def _own_text(element: Element) -> str:
    return "".join(child.data for child in element.childNodes if child.nodeType in (child.TEXT_NODE, 4))


def _whole_text(element: Element) -> str:
    """All texts and values below an element, joined: a picture may be cut into the items of a list."""
    pieces = [attribute.value for attribute in _attributes(element) if attribute.namespaceURI not in (_XML, _RDF)]
    for child in element.childNodes:
        if child.nodeType == child.ELEMENT_NODE:
            pieces.append(_whole_text(child))
        elif child.nodeType in (child.TEXT_NODE, child.CDATA_SECTION_NODE):
            pieces.append(child.data.strip())
    return "".join(pieces)


def _all_of(element: Element) -> bytes:
    return _whole_text(element).encode("utf-8", "replace")


def _elements(element: Element) -> list[Element]:
    return [child for child in element.childNodes if child.nodeType == child.ELEMENT_NODE]


def _property_above(element: Element) -> tuple[str, str]:
    node = element.parentNode
    while node is not None and node.nodeType == node.ELEMENT_NODE and node.namespaceURI == _RDF:
        node = node.parentNode
    return _name_of(node) if node is not None and node.nodeType == node.ELEMENT_NODE else ("", "")


def _ancestry(element: Element) -> str:
    names = []
    node = element.parentNode
    while node is not None and node.nodeType == node.ELEMENT_NODE:
        names.append(str(node.localName))
        node = node.parentNode
    return " ".join(names)


# --- private: what is known stays ---------------------------------------------------------------------------


def _keep_known(root: Element, cleaning: Cleaning) -> int:
    """Removes everything unknown; how many properties are left."""
    if root.namespaceURI == _RDF and root.localName == "RDF":
        trees = [root]
    elif root.namespaceURI == _META and root.localName in ("xmpmeta", "xapmeta"):
        trees = []
        for child in _elements(root):
            if child.namespaceURI == _RDF and child.localName == "RDF":
                trees.append(child)
            else:
                _remove(child, cleaning)
    else:
        cleaning.drop(Removed.OTHER)
        return 0
    for element in {root, *trees}:
        _remove_loose(element)
        for attribute in _attributes(element):
            if attribute.value and attribute.localName != "xmptk":
                cleaning.drop(Removed.OTHER)
            element.removeAttributeNode(attribute)
    left = sum(_keep_known_of(child, cleaning) for tree in trees for child in _elements(tree))
    _forget_prefixes(root)
    return left


def _keep_known_of(node: Element, cleaning: Cleaning) -> int:
    """Prunes one description; how many properties are left of it."""
    if node.namespaceURI != _RDF or node.localName != "Description":
        _remove(node, cleaning, Removed.OTHER)
        return 0
    _remove_loose(node)
    left = 0
    for attribute in _attributes(node):
        if attribute.namespaceURI == _RDF:
            attribute.value = ""  # about: an id of the document
            continue
        if not attribute.value:
            node.removeAttributeNode(attribute)
            continue
        reason = _against_value(_name_of(attribute), attribute.value, cleaning)
        left += int(reason is None)
        if reason is not None:
            cleaning.drop(reason)
            node.removeAttributeNode(attribute)
    for child in _elements(node):
        if _is_emptied_of_keywords(child, cleaning):
            node.removeChild(child)
            continue
        reason = _against_property(child, cleaning)
        if reason is not None:
            _remove(child, cleaning, reason)
        else:
            left += 1
    return left


def _against_property(element: Element, cleaning: Cleaning) -> Removed | None:
    """Why a property goes; what is not known inside one that stays is removed from it."""
    name = _name_of(element)
    if not _is_known(name):  # goes in any case
        return Removed.PICTURE if cleaning.sees_picture(_all_of(element)[:SEARCHED]) else _reason(name)
    if cleaning.sees_picture(_all_of(element)):
        return Removed.PICTURE
    return _against_structure(element, name, cleaning)


def _against_structure(element: Element, name: tuple[str, str], cleaning: Cleaning) -> Removed | None:
    for attribute in _attributes(element):
        if attribute.namespaceURI == _XML and attribute.localName == "lang" and _LANGUAGE.fullmatch(attribute.value):
            continue
        if attribute.namespaceURI == _RDF and attribute.localName == "parseType" and attribute.value == "Resource":
            continue
        known = _against_value(_name_of(attribute), attribute.value, cleaning) is None
        if not known:
            cleaning.drop(_reason(_name_of(attribute)))
            element.removeAttributeNode(attribute)
    for child in list(element.childNodes):
        if child.nodeType == child.ELEMENT_NODE:
            inner = _name_of(child)
            container = child.namespaceURI == _RDF and child.localName in _CONTAINERS
            if not container and not _is_known(inner):
                _remove(child, cleaning)
                continue
            reason = _against_structure(child, name if container else inner, cleaning)
            if reason is not None:
                return reason
        elif child.nodeType not in (child.TEXT_NODE, child.CDATA_SECTION_NODE):
            element.removeChild(child)
    text = _own_text(element)
    return _against_value(name, text, cleaning) if text.strip() else None


def _remove_loose(element: Element) -> None:
    """Removes what stands between the children: spaces, comments, instructions."""
    for child in list(element.childNodes):
        if child.nodeType != child.ELEMENT_NODE:
            element.removeChild(child)


def _is_emptied_of_keywords(element: Element, cleaning: Cleaning) -> bool:
    """Removes single keywords from a list of them; whether none is left."""
    name = _name_of(element)
    if name[1] not in _KEYWORDS.get(name[0], ()):
        return False
    items = element.getElementsByTagNameNS(_RDF, "li")
    against = [(item, _against_value(name, _own_text(item), cleaning)) for item in items]
    for item, reason in against:
        if reason is not None:
            _remove(item, cleaning, reason)
    return bool(against) and all(reason is not None for _, reason in against)


def _against_value(name: tuple[str, str], text: str, cleaning: Cleaning) -> Removed | None:
    if not _is_known(name):
        return _reason(name)
    if cleaning.sees_picture(text.encode("utf-8", "replace")):
        return Removed.PICTURE
    if not is_readable(text):
        return Removed.OTHER
    if name[1] in _KEYWORDS.get(name[0], ()):
        return cleaning.against_keyword(text)
    if name[1] in _PLAIN.get(name[0], ()) and len(text) > _LONGEST_PLAIN:
        return Removed.OTHER
    return against_text(text) if name in _NOTICES else cleaning.against_caption(text)


def _is_known(name: tuple[str, str]) -> bool:
    return any(name[1] in table.get(name[0], ()) for table in (_CAPTIONS, _KEYWORDS, _PLAIN))


def _reason(name: tuple[str, str]) -> Removed:
    """What kind of thing a property is that does not stay, for the report."""
    namespace, local = name
    if _speaks_of_picture(name):
        claims = _CLAIM_NAME.search(local) or namespace.startswith(_CLAIM_NAMESPACES)
        return Removed.CLAIM if claims else Removed.PICTURE
    if _PERSON_HOMES.search(namespace) or local in _PERSON_FIELDS or re.search("region", local, re.IGNORECASE):
        return Removed.PERSON
    for pattern, kind in (
        (_PLACE_NAME, Removed.PLACE),
        (_OWNER_NAME, Removed.OWNER),
        (_DEVICE_NAME, Removed.DEVICE),
        (_LINK_NAME, Removed.LINK),
    ):
        if pattern.search(local if pattern is not _LINK_NAME else local.lower()):
            return kind
    return Removed.LINK if namespace == _MM else Removed.OTHER


def _remove(element: Element, cleaning: Cleaning, reason: Removed | None = None) -> None:
    cleaning.drop(reason or _reason(_name_of(element)))
    if element.parentNode is not None:
        element.parentNode.removeChild(element)


def _forget_prefixes(root: Element) -> None:
    """Removes the declarations of prefixes that nothing uses any more."""
    elements = [root, *root.getElementsByTagName("*")]
    used = {element.prefix or "" for element in elements}
    used |= {attribute.prefix or "" for element in elements for attribute in _attributes(element)}
    for element in elements:
        for attribute in list(element.attributes.values()):
            if attribute.prefix == "xmlns" and attribute.localName not in used:
                element.removeAttributeNode(attribute)


# --- keep: pictures go --------------------------------------------------------------------------------------


def _speaks_of_picture(name: tuple[str, str]) -> bool:
    return name[0].startswith(_PICTURE_NAMESPACES) or is_picture_name(name[1])


def _drop_pictures(element: Element, cleaning: Cleaning, *, seen: bool = False) -> None:
    """Removes them below an element; `seen` when its whole text was looked through."""
    for attribute in _attributes(element):
        name = _name_of(attribute)
        new = not seen or attribute.namespaceURI in (_XML, _RDF)  # those are not of the whole text
        if _speaks_of_picture(name) or (new and cleaning.sees_picture(attribute.value.encode("utf-8", "replace"))):
            cleaning.drop(_reason(name) if _speaks_of_picture(name) else Removed.PICTURE)
            element.removeAttributeNode(attribute)
    for child in list(element.childNodes):
        if child.nodeType == child.ELEMENT_NODE:
            name = _name_of(child)
            if _speaks_of_picture(name):
                _remove(child, cleaning)
            elif not seen and _is_property(child) and cleaning.sees_picture(_all_of(child)):
                _remove(child, cleaning, Removed.PICTURE)
            else:
                _drop_pictures(child, cleaning, seen=seen or _is_property(child))
        elif child.nodeType not in (child.TEXT_NODE, child.CDATA_SECTION_NODE):
            element.removeChild(child)


def _is_property(element: Element) -> bool:
    return element.namespaceURI not in (_RDF, _META)
