"""What cleaning knows while it goes through the parts of a photo's metadata: the policy, names to look for, a tally."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache

from bauta.photo.embedded import holds_picture

SEARCHED = 2**16
"""Bytes of what goes in any case that are looked through, to say why."""

_MOST_NAMES, _MOST_KEYWORDS = 500, 2000  # of a photo; beyond, none of the keywords stays
_MOST_LOOKED = 2**20  # bytes of all metadata of a photo that are to stay


class Removed(Enum):
    """Kinds of what is removed, in the words of reports."""

    PICTURE = "embedded pictures"
    FILM = "data after the picture"
    CLAIM = "claims about removed pictures"
    PLACE = "positions and places"
    PERSON = "names of people"
    OWNER = "authors and owners"
    DEVICE = "serial numbers and maker notes"
    LINK = "document ids and links"
    PATH = "paths"
    PROMPT = "prompts and program texts"
    UNREADABLE = "unreadable parts"
    OTHER = "unknown fields"
    STRIPPED = "everything but the colour profile"


@dataclass
class Cleaning:
    """One pass over the metadata of a photo.

    Attributes:
        private: Whether only what is known to be harmless stays, or everything but pictures.
        people: Names of people from face regions and people tags, folded.
        places: Names of places, folded.
        owners: Names of authors and owners, folded.
        removed: How many fields of each kind went.
        looked: Bytes that were looked through for pictures.
        keywords: How many were compared with the names.
    """

    private: bool
    people: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    removed: Counter[Removed] = field(default_factory=Counter)
    looked: int = 0
    keywords: int = 0

    def sees_picture(self, data: bytes) -> bool:
        """Whether bytes look as if they held a picture; always, when no more can be looked through."""
        self.looked += len(data)
        return self.looked > _MOST_LOOKED or holds_picture(data)

    def drop(self, kind: Removed, count: int = 1) -> None:
        """Counts something that does not stay."""
        self.removed[kind] += count

    def note_keyword(self, keyword: str) -> None:
        """Learns the names that a keyword in a tree of keywords tells to be people's or places'."""
        root, *branches = _branches(keyword)
        if branches and root in _PEOPLE_ROOTS:
            note(self.people, branches)
        elif branches and root in _PLACE_ROOTS:
            note(self.places, branches)

    def against_keyword(self, keyword: str) -> Removed | None:
        """Why a keyword goes: it names a person, a place or the owner that the photo names elsewhere."""
        root, *branches = parts = _branches(keyword)
        self.keywords += 1
        if self.keywords > _MOST_KEYWORDS:
            return Removed.OTHER
        if branches and root in _PEOPLE_ROOTS:
            return Removed.PERSON
        if branches and root in _PLACE_ROOTS:
            return Removed.PLACE
        for names, kind in (
            (self.people, Removed.PERSON),
            (self.places, Removed.PLACE),
            (self.owners, Removed.OWNER),
        ):
            if len(names) > _MOST_NAMES or any(_words_of(name) <= _words_of(part) for part in parts for name in names):
                return kind
        # A first or a last name alone is that person's too.
        single = any(part in _words_of(name) for part in parts if len(part) > 2 for name in self.people)
        return Removed.PERSON if single else against_text(keyword)

    def against_caption(self, text: str) -> Removed | None:
        """Why a text goes: it is but names that the photo gives elsewhere, but a link, or what `against_text` tells."""
        if _LINK.fullmatch(text.strip()):
            return Removed.LINK
        said = _words_of(folded(text)) - _CONNECTING
        if said and len(text) < _LONGEST_NAMES:
            for kind, known in self._words_of_names.items():
                if said <= known:
                    return kind
        return against_text(text)

    @cached_property
    def _words_of_names(self) -> dict[Removed, frozenset[str]]:
        """The words of all names, once all of them are known."""
        kinds = ((Removed.PERSON, self.people), (Removed.PLACE, self.places), (Removed.OWNER, self.owners))
        return {kind: frozenset(word for name in names for word in name.split()) for kind, names in kinds}


def note(names: set[str], texts: Iterable[str]) -> None:
    """Adds names, folded; one letter alone is not a name."""
    names.update(name for name in map(folded, texts) if len(name) > 1)


def folded(text: str) -> str:
    """A text for comparison: no case, no punctuation, words parted by single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("_", " ")))


def _branches(keyword: str) -> list[str]:
    """The folded parts of ``People|Anna``, ``People/Anna``, ``People\\Anna`` or a plain keyword; one at least."""
    return [folded(part) for part in re.split(r"[|/\\>:;]", keyword) if part.strip()] or [""]


@lru_cache(maxsize=5000)
def _words_of(name: str) -> frozenset[str]:
    """The words of a folded name; their order tells nothing, since people are also listed by their last names."""
    return frozenset(name.split())


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_PEOPLE_ROOTS = words(
    "people person persons persona personas personen personer personnes pessoas gente names faces face gesichter "
    "visages ludzie osoby menschen namen family familie friends who leute freunde famille amis familia amigos famiglia "
    "amici mensen vrienden personas pessoas personer lidé люди семья 人 人物 人们 人々 사람"
) | {"known people", "tagged people"}
_PLACE_ROOTS = words(
    "place places location locations ort orte lieu lieux lugar lugares luoghi platser plaatsen miejsca country "
    "countries city cities geo geotag geotags gps where travel"
)

_CONNECTING = words("and with und mit et avec y con e com i och en met by von photo foto c")
_LONGEST_NAMES = 1000  # characters; a text of nothing but names is shorter
_LINK = re.compile(r"(?:https?:/+|www\.)\S{1,2000}", re.IGNORECASE)
# Degrees with four decimals or more tell a house; so do degrees and minutes with their hemisphere.
_POSITION = re.compile(
    r"(?<![\d.])-?\d{1,3}\.\d{4,}\s{0,3}[,;/\s]\s{0,3}-?\d{1,3}\.\d{4,}"
    r"|(?<!\d)\d{1,3}\s?[°º]\s?\d{1,2}(?:\.\d{1,9})?\s?['′’](?:\s?\d{1,2}(?:\.\d{1,9})?\s?(?:[\"″”]|''))?\s?[NSEWO]\b"
    r"|\bgeo:-?\d"
)

_PATH = re.compile(
    r"(?<![a-z])[a-z]:[\\/]{1,8}\w"  # C:\Users\...
    r"|(?<![\w.])/{1,8}(?:home|users|volumes|mnt|media|root|private/var|var/(?:folders|mobile)|data/(?:user|media|data)"
    r"|storage|sdcard)/"
    r"|\\{2,8}[\w.-]+\\{1,8}[\w$ .-]"  # \\server\share
    r"|\bfile:/|\bsmb://|(?<!\S)~[/\\]\w|%userprofile%|content://",
    re.IGNORECASE,
)
_PROMPT = re.compile(r"<lora:|\bnegative prompt\s{0,9}:|\bcfg scale\s{0,9}:", re.IGNORECASE)
_STEPS = re.compile(r"\bsteps\s{0,9}:\s{0,9}\d{1,9}\s{0,9},", re.IGNORECASE)
_SAMPLER = re.compile(r"\b(?:sampler|cfg scale|seed|model)\b", re.IGNORECASE)


def against_text(text: str) -> Removed | None:
    """Why a text does not stay in private: it names a path of somebody's computer or a position, or a program wrote it
    for itself.

    A text goes whole or stays whole.
    """
    if _PATH.search(text):
        return Removed.PATH
    if _POSITION.search(text):
        return Removed.PLACE
    steps = _STEPS.search(text)
    if steps and _SAMPLER.search(text, steps.end()):
        return Removed.PROMPT
    if _PROMPT.search(text) or isinstance(program_values(text), dict):
        return Removed.PROMPT
    return None


def program_values(text: str) -> object:
    """What a program's JSON says, also behind a label (``Workflow: {...}``); None when it is none."""
    body = re.sub(r"^\s*[\w-]{1,30}\s*:\s*(?=[{\[])", "", text).strip()
    if not body.startswith(("{", "[{")):
        return None
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return {"": values} if isinstance(values, list) else values


def is_readable(text: str) -> bool:
    """Whether a text is one for people: next to no control characters, and none that Unicode does not know."""
    odd = sum(
        (letter < " " and not letter.isspace())
        or letter == "\x7f"
        or unicodedata.category(letter) in ("Cn", "Cs", "Co")
        for letter in text
    )
    return odd * 50 <= len(text)


def decoded(data: bytes) -> str:
    """Text as UTF-8, or else byte by byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def is_plain_text(data: bytes) -> bool:
    """Whether bytes of unknown meaning are certainly a text: UTF-8 for people."""
    try:
        return is_readable(data.decode("utf-8"))
    except UnicodeDecodeError:
        return False
