"""The texts of the page: one file a language, with the same keys in each."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

LANGUAGES = {"en": "English", "de": "Deutsch"}
"""By code, what each calls itself; the first one is taken where none fits."""


@cache
def texts(language: str) -> dict[str, Any]:
    """All texts of a language, by key; ``{name}`` stands for a value, ``one`` and ``other`` for the plural's forms."""
    text = resources.files(__package__).joinpath(f"{language}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def language_of(accepted: str) -> str:
    """The language for an Accept-Language header.

    >>> language_of("fr-CH, fr;q=0.9, de;q=0.7, en;q=0.3"), language_of("fr"), language_of("en;q=x, *")
    ('de', 'en', 'en')
    """
    ranked = []
    for place, part in enumerate(accepted.split(",")):
        tag, _, weight = part.strip().partition(";q=")
        try:
            ranked.append((-float(weight or 1), place, tag.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    return next((tag for _, _, tag in sorted(ranked) if tag in LANGUAGES), next(iter(LANGUAGES)))
