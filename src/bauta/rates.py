"""False match rates at which Bauta decides, stated once, and what becomes of them among many people."""

import math

FMRS = (1e-2, 1e-3, 1e-4)
"""Those at which recognisers have thresholds; the first is the hardest for a mask to get below."""

SELECTION_FMR = 1e-3
"""At which a face counts as the person of a reference photo when faces are selected."""


def fpir(people: int, fmr: float) -> float:
    """The probability that a stranger is told that somebody matches, if comparisons err independently.

    >>> round(fpir(10_000, 1e-4), 2)
    0.63
    """
    return -math.expm1(people * math.log1p(-fmr))


def largest_gallery(fmr: float, rate: float) -> int:
    """How many people there may be for the FPIR to stay at a rate.

    >>> largest_gallery(1e-4, 0.01)
    100
    """
    return math.floor(math.log1p(-rate) / math.log1p(-fmr))
