"""What happens to a protected photo before it is judged: names of `protection.conditions`, alone or in chains."""

from __future__ import annotations

from bauta.errors import UsageError
from bauta.protection.conditions import CONDITIONS, Condition

LOSSLESS = "lossless"
"""What a PNG keeps: the mask on the pixels, before the photo is encoded as its own format."""

_CONDITIONS = {condition.name: condition for condition in CONDITIONS}


def transports(name: str) -> tuple[Condition, ...]:
    """The conditions of a chain such as ``half-size+jpeg-75``, first to last; none for `LOSSLESS`.

    Raises:
        UsageError: when one is not known.
    """
    if name == LOSSLESS:
        return ()
    try:
        return tuple(_CONDITIONS[part] for part in name.split("+"))
    except KeyError as error:
        raise UsageError(
            f"The transport {name!r} is not known.",
            hint=f"There is {LOSSLESS}, and, alone or joined by +, {', '.join(_CONDITIONS)}.",
        ) from error
