"""From how many noisy copies were accepted to an answer and how far it holds.

Cohen, Rosenfeld and Kolter (ICML 2019, arXiv 1902.02918): let a classifier see a picture under Gaussian noise of
standard deviation sigma, and let p be the probability of its likelier answer. This answer stays the likelier one for
every change of the picture whose L2 length is below sigma times the normal quantile of p, whatever the classifier is.
p is only known from n copies, so a lower bound of Clopper and Pearson takes its place. What is ours: there are two
answers, so one interval of two sides does for both, and no copies are spent on choosing between them.

>>> decide(500, Smoothing(sigma=0.1, n=1000)).decision
'abstained'
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal

from bauta.errors import UsageError
from bauta.metrics import clopper_pearson
from bauta.settings import Range, Settings

Decision = Literal["accepted", "rejected", "abstained"]

MOST = 1_000_000  # copies


@dataclass(frozen=True)
class Smoothing(Settings):
    """How an answer is smoothed and certified.

    Attributes:
        sigma: Standard deviation of the noise on each value of the aligned crop, whose values are in [0, 1].
        n: Noisy copies of the face that is compared.
        alpha: Greatest probability that a certificate is wrong.
        enrolment: Noisy copies of the reference, whose mean template is enrolled; they are not among the `n`. With 0
            the reference is enrolled as it is.
        batch: Copies that pass through the network together.
    """

    title: ClassVar[str] = "smoothing"
    sigma: Annotated[float, Range(above=0, to=1)] = 0.12
    n: Annotated[int, Range(at=1, to=MOST)] = 1000
    alpha: Annotated[float, Range(above=0, below=1)] = 1e-3
    enrolment: Annotated[int, Range(at=0, to=MOST)] = 0
    batch: Annotated[int, Range(at=1, to=1024)] = 32

    def problems(self) -> Iterator[tuple[str, str]]:
        """Fewer copies than any answer needs."""
        if self.n < (needed := copies_needed(0, self.sigma, self.alpha)):
            yield "n", f"With alpha {self.alpha:g} any answer needs at least {needed} copies, all of one mind."


@dataclass(frozen=True)
class Certificate:
    """An answer and how far it holds.

    Attributes:
        decision: ``accepted``, ``rejected``, or ``abstained`` where `n` copies do not tell.
        radius: The answer is the same for every change of the aligned crop whose L2 length is below this; 0 for none.
        accepted: Copies that were accepted.
        low: Lower bound of the probability that a copy is accepted.
        high: Upper bound; both hold together with a probability of 1 - alpha.
    """

    decision: Decision
    radius: float
    accepted: int
    low: float
    high: float


def decide(accepted: int, settings: Smoothing) -> Certificate:
    """The answer that so many accepted copies allow.

    Args:
        accepted: Copies that were accepted, from 0 to `settings.n`.
        settings: Of the noise and the confidence.

    Raises:
        UsageError: when there are more accepted copies than copies.
    """
    if not 0 <= accepted <= settings.n:
        raise UsageError(f"{accepted} of {settings.n} copies cannot be accepted.", hint="Count the copies again.")
    low, high = clopper_pearson(accepted, settings.n, 1 - settings.alpha)
    decision: Decision = "accepted" if low > 0.5 else "rejected" if high < 0.5 else "abstained"
    share = {"accepted": low, "rejected": 1 - high, "abstained": 0.5}[decision]
    return Certificate(decision, settings.sigma * max(0.0, NormalDist().inv_cdf(share)), accepted, low, high)


def copies_needed(radius: float, sigma: float, alpha: float) -> int:
    """The fewest copies that can certify a radius: as many as do when all of them agree.

    >>> copies_needed(0, 0.12, 1e-3), copies_needed(0.25, 0.12, 1e-3)
    (11, 405)

    Raises:
        UsageError: when no number of copies that is allowed can.
    """
    other = 0.5 * math.erfc(radius / sigma / math.sqrt(2))  # the most that may be of the other mind
    count = math.floor(math.log(alpha / 2) / math.log1p(-other)) + 1 if other > 0 else MOST + 1
    if count > MOST:
        raise UsageError(
            f"A radius of {radius:g} cannot be certified with a sigma of {sigma:g} by {MOST:,} copies.",
            hint="Ask for a smaller radius, or raise sigma.",
        )
    return count


def require_copies(radius: float, settings: Smoothing) -> None:
    """Refuse settings that cannot certify a radius, whatever the copies say.

    Raises:
        UsageError: naming the copies that are needed.
    """
    if settings.n < (needed := copies_needed(radius, settings.sigma, settings.alpha)):
        raise UsageError(
            f"{settings.n} copies cannot certify a radius of {radius:g} with sigma {settings.sigma:g} and alpha "
            f"{settings.alpha:g}.",
            hint=f"At least {needed} copies are needed, all of one mind; or raise sigma.",
        )
