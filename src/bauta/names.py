"""Names of people that are one under any spelling: for benchmarks, trainings, and calibrations alike."""

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
        raise UsageError(f"{name!r} is no name.", hint="A person's name needs a letter or a digit.")
    return plain
