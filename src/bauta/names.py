"""Names: of people, one under any spelling, for benchmarks, trainings and calibrations alike; and of files."""

from __future__ import annotations

import unicodedata

from bauta.errors import UsageError

# Letters that Unicode does not split into a base letter and a mark.
_PLAIN_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})


def normalise_name(name: str) -> str:
    """The letters and digits of a name, without case or accents: ``Zoë Saldaña-Perego`` is ``zoesaldanaperego``.

    Spaces, underscores, hyphens, dots and apostrophes vanish, so that ``A.J. Cook`` is ``AJ_Cook``. Another
    spelling (``Cavil``, ``Cavill``) is another person. Our design.

    Raises:
        UsageError: when nothing is left.
    """
    letters = unicodedata.normalize("NFKD", name.casefold()).translate(_PLAIN_LETTERS)
    plain = "".join(letter for letter in letters if letter.isalnum())
    if not plain:
        raise UsageError(f"{name!r} is not a name.", hint="A person's name needs a letter or a digit.")
    return plain


_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"}
)


def names_a_file(name: str) -> bool:
    """Whether every usual system takes it as the name of a file: neither a device of Windows, such as ``NUL`` or
    ``con.txt``, nor ending in a dot or a space, nor with a character that is special somewhere."""
    return (
        bool(name)
        and name.isprintable()
        and not set('<>:"/\\|?*') & set(name)
        and name[-1] not in ". "
        and name.split(".")[0].rstrip().casefold() not in _DEVICES
        and len(name.encode("utf-8", "replace")) <= 255
    )
