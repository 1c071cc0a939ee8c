"""Who is in a set: names that are one under any spelling, the lists that sets come with, and splits without overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bauta.errors import UsageError
from bauta.names import normalise_name

_PAIR = re.compile(r"\S.*?\s+\d+\s+(?:\S.*?\s+)?\d+")  # LFW's 'name n1 n2' or 'name1 n1 name2 n2'

OTHER_SPELLINGS = (
    "Chris_Pratt", "Cristiano_Ronaldo", "Barbra_Streisand", "Albert_Pujols", "Stephen_Ebberharter",
    "Vicente_Fox_de_la_Concha", "Robert_Marshall", "David_Kelly", "Carlos_Barra", "Carlos_Alberto_Parreira",
    "Davey_Johnson", "Dave_McNally", "Fidel_Castro_Daiz-Balart",
)  # fmt: skip
"""Whom other sets call so, and LFW's pairs or CFP otherwise, or perhaps so: recipes leave them out of any training."""


def assert_disjoint(people: Iterable[str], excluded: Iterable[str]) -> None:
    """Make sure that nobody who is excluded is among the people, whatever the spelling of `normalise_name`.

    Raises:
        UsageError: naming the first of those who are.
    """
    refused = {normalise_name(name) for name in excluded}
    offenders = [name for name in dict.fromkeys(people) if normalise_name(name) in refused]
    if offenders:
        more = f" and {len(offenders) - 5} more" if len(offenders) > 5 else ""
        raise UsageError(
            f"People who must not be in this set are: {', '.join(offenders[:5])}{more}.",
            hint="Leave them out of one of the two sets, and make it again.",
        )


@dataclass(frozen=True)
class NamedPair:
    """A line of LFW's ``pairs.txt``: two photos by person and number."""

    first: tuple[str, int]
    second: tuple[str, int]

    @property
    def same(self) -> bool:
        """Whether the line names one person."""
        return self.first[0] == self.second[0]


def pairs_of_list(path: Path) -> tuple[tuple[int, ...], tuple[NamedPair, ...]]:
    """LFW's ``pairs.txt``: lines ``name n1 n2`` or ``name1 n1 name2 n2`` after one of sizes.

    Returns:
        The numbers of the first line, folds and pairs of each kind in a fold, or the latter alone, or none when the
        line is missing; and the pairs.

    Raises:
        UsageError: when a line has another form, or there is no pair.
    """
    sizes: tuple[int, ...] = ()
    pairs = []
    for number, line in enumerate(lines_of(path)):
        fields = line.split("\t") if "\t" in line else line.split()
        if number == 0 and len(fields) <= 2 and all(field.isdecimal() for field in fields):
            sizes = tuple(map(int, fields))
            continue
        counts = fields[1:] if len(fields) == 3 else fields[1::2]
        if len(fields) not in (3, 4) or not all(field.isdecimal() for field in counts):
            raise UsageError(
                f"{path} has a line {line!r}.", hint="LFW's lines are 'name n1 n2' or 'name1 n1 name2 n2'."
            )
        other = fields[0] if len(fields) == 3 else fields[2]
        pairs.append(NamedPair((fields[0], int(counts[0])), (other, int(counts[1]))))
        if len(fields) == 4 and pairs[-1].same:
            raise UsageError(
                f"{path} has {line!r} among pairs of different people.",
                hint="Name the person once, or correct the line.",
            )
    _some([pair.first[0] for pair in pairs], path)
    return sizes, tuple(pairs)


def names_of_pairs(path: Path) -> frozenset[str]:
    """The people of LFW's ``pairs.txt``.

    Raises:
        UsageError: when a line has another form, or there is none.
    """
    return frozenset(name for pair in pairs_of_list(path)[1] for name, _ in (pair.first, pair.second))


def names_of_list(path: Path) -> frozenset[str]:
    """The people of a list with one name per line, such as CFP's ``list_name.txt``.

    Raises:
        UsageError: when there is none.
    """
    return _some(lines_of(path), path)


def excluded_names(lists: Iterable[Path], further: Iterable[str] = ()) -> set[str]:
    """The people of lists, of either form, and further names.

    Raises:
        UsageError: when a list is missing or names nobody.
    """
    names = set(further)
    for path in lists:
        if not path.is_file():
            raise UsageError(
                f"The list of excluded people {path} is missing.", hint="Correct --data, --exclude or the recipe."
            )
        # By their form, since a list of pairs read as one of names would exclude nobody, and say nothing.
        paired = any(_PAIR.fullmatch(line) for line in lines_of(path))
        names |= names_of_pairs(path) if paired else names_of_list(path)
    return names


def lines_of(path: Path) -> list[str]:
    """The lines of a text in UTF-8 without the space around them; empty ones are left out.

    Raises:
        UsageError: when it cannot be read as such.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{path} cannot be read as text.", hint="Check the name of the list.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _some(names: Iterable[str], path: Path) -> frozenset[str]:
    found = frozenset(names)
    if not found:
        raise UsageError(f"{path} names no one.", hint="Check the name of the list.")
    return found
