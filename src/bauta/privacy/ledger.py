"""What was released of whom: budgets add up over all releases, and a release that would exceed the limit is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bauta.errors import UsageError
from bauta.files import PathLike, write_atomically
from bauta.privacy.mechanisms import Spent


class Ledger:
    """Epsilon spent by subject, in a file that is written before anything is released.

    One process writes a ledger at a time. Subjects are pseudonyms: the file is not sealed.

    Args:
        path: Of the file; it is made by the first release.
        limit: Of a subject, over all releases.

    Raises:
        UsageError: when the limit is not a positive number, or the file is not a ledger of this limit.
    """

    def __init__(self, path: PathLike, limit: float) -> None:
        if isinstance(limit, bool) or not 0 < limit < math.inf:
            raise UsageError(f"A limit cannot be {limit}.", hint="Give a positive number.")
        self.path, self.limit = Path(path), float(limit)
        self._spent: dict[str, list[list[str | float]]] = {}
        if self.path.exists():
            self._spent = self._read()

    def spent(self, subject: str) -> float:
        """Epsilon of all releases of a subject."""
        return math.fsum(float(epsilon) for _, epsilon in self._spent.get(subject, []))

    def charge(self, subject: str, spent: Spent, images: int = 1) -> float:
        """Note a release, to be called before it is made; what is left afterwards.

        Raises:
            UsageError: when more would be spent than the limit allows; nothing is noted then.
            OutputError: when the file cannot be written; nothing may be released then.
        """
        before, asked = self.spent(subject), spent.person(images)
        if before + asked > self.limit:
            raise UsageError(
                f"The budget of this subject is spent: {before:g} of {self.limit:g}, and {asked:g} is asked for.",
                hint="Release nothing more of this person, or decide on another limit for everybody.",
            )
        entries = dict(self._spent)
        entries[subject] = [*self._spent.get(subject, []), [spent.mechanism, asked]]
        content = json.dumps({"schema": 1, "limit": self.limit, "subjects": entries}, sort_keys=True)
        write_atomically(self.path, content.encode(), overwrite=True, mode=0o600)
        self._spent = entries
        return self.limit - self.spent(subject)

    def _read(self) -> dict[str, list[list[str | float]]]:
        try:
            about = json.loads(self.path.read_text(encoding="utf-8"))
            subjects: dict[str, list[list[str | float]]] = about["subjects"]
            good = about["schema"] == 1 and about["limit"] == self.limit
            good &= all(
                type(one) is list and len(one) == 2 and 0 < float(one[1]) < math.inf
                for entries in subjects.values()
                for one in entries
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{self.path} is not a ledger.", hint="Restore it; without it nothing is released."
            ) from error
        if not good:
            raise UsageError(
                f"{self.path} is a ledger of another limit, or damaged.", hint="Restore it, or give its limit."
            )
        return subjects
