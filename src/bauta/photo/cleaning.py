"""What cleaning knows while it goes through the parts of a photo's metadata: the policy, names to look for, a tally."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


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
    """

    private: bool
    people: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    removed: Counter[Removed] = field(default_factory=Counter)

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
        if branches and root in _PEOPLE_ROOTS:
            return Removed.PERSON
        if branches and root in _PLACE_ROOTS:
            return Removed.PLACE
        for names, kind in (
            (self.people, Removed.PERSON),
            (self.places, Removed.PLACE),
            (self.owners, Removed.OWNER),
        ):
            if any(_mentions(part, name) for part in parts for name in names):
                return kind
        # A first or a last name alone is that person's too.
        single = {word for name in self.people for word in name.split() if len(word) > 2}
        return Removed.PERSON if single.intersection(parts) else against_text(keyword)


def note(names: set[str], texts: Iterable[str]) -> None:
    """Adds names, folded; one letter alone is not a name."""
    names.update(name for name in map(folded, texts) if len(name) > 1)


def folded(text: str) -> str:
    """A text for comparison: no case, no punctuation, words parted by single spaces."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold().replace("_", " ")))


def _branches(keyword: str) -> list[str]:
    """The folded parts of ``People|Anna``, ``People/Anna``, ``People\\Anna`` or a plain keyword; one at least."""
    return [folded(part) for part in re.split(r"[|/\\>:;]", keyword) if part.strip()] or [""]


def _mentions(text: str, name: str) -> bool:
    """Whether all words of a name are in a text, in any order: people are also listed by their last names."""
    return set(name.split()) <= set(text.split())


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_PEOPLE_ROOTS = words(
    "people person persons persona personas personen personer personnes pessoas gente names faces face gesichter "
    "visages ludzie osoby menschen namen family familie friends who"
) | {"known people", "tagged people"}
_PLACE_ROOTS = words(
    "place places location locations ort orte lieu lieux lugar lugares luoghi platser plaatsen miejsca country "
    "countries city cities geo geotag geotags gps where travel"
)

_PATH = re.compile(
    r"(?<![a-z])[a-z]:[\\/]+\w"  # C:\Users\...
    r"|(?<![\w.])/+(?:home|users|volumes|mnt|media|root|private/var|var/(?:folders|mobile)|data/(?:user|media|data)"
    r"|storage|sdcard)/"
    r"|\\\\+[\w.-]+\\+[\w$ .-]+"  # \\server\share
    r"|\bfile:/|\bsmb://|(?<!\S)~[/\\]\w|%userprofile%|content://",
    re.IGNORECASE,
)
_PROMPT = re.compile(
    r"<lora:|\bnegative prompt\s*:|\bsteps\s*:\s*\d+\s*,.*\b(?:sampler|cfg scale|seed|model)\b|\bcfg scale\s*:",
    re.IGNORECASE | re.DOTALL,
)


def against_text(text: str) -> Removed | None:
    """Why a text does not stay in private: it names a path of somebody's computer, or a program wrote it for itself.

    A text goes whole or stays whole.
    """
    if _PATH.search(text):
        return Removed.PATH
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
