"""Who a probe is: the decision rule of a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from bauta.errors import NotCalibrated, NumericalFailure, UsageError
from bauta.gallery.enrol import Gallery
from bauta.recognizers import calibration
from bauta.templates.base import Protector
from bauta.templates.representation import Representation


@dataclass(frozen=True)
class Decision:
    """What a gallery says of one probe.

    Attributes:
        probe: What the probe is called.
        nearest: Name of the gallery's most similar face.
        cosine: Its similarity, -1 to 1.
        match: Whether that reaches the threshold; None where there is no threshold.
    """

    probe: str
    nearest: str
    cosine: float
    match: bool | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """All scores of some probes against a gallery.

    Attributes:
        gallery: N names.
        probes: M names.
        scores: (N, M) cosines.
        threshold: Cosine from which on a probe matches, or None.
        fmr: False match rate that the threshold stands for, or None where it was given, or there is none.
    """

    gallery: tuple[str, ...]
    probes: tuple[str, ...]
    scores: Tensor
    threshold: float | None
    fmr: float | None

    def decisions(self) -> list[Decision]:
        """For each probe the nearest face, and whether it is near enough."""
        best, places = self.scores.max(0)
        return [
            Decision(probe, self.gallery[place], cosine, None if self.threshold is None else cosine >= self.threshold)
            for probe, place, cosine in zip(self.probes, places.tolist(), best.tolist(), strict=True)
        ]


class Matcher:
    """Compares probes with galleries of one protector, and decides.

    Args:
        protector: Of the galleries.
        fmr: False match rate of the decision: 1e-2, 1e-3 or 1e-4.
        threshold: Decide from this cosine on, instead of at `fmr`.

    Attributes:
        threshold: The cosine that decides: the given one, the protector's own where templates are those of another
            network than its recogniser, or the recogniser's; None where none is known.
    """

    def __init__(self, protector: Protector, *, fmr: float = 1e-3, threshold: float | None = None) -> None:
        self.protector = protector
        self.threshold, self._fmr = threshold, None if threshold is not None else fmr
        own = protector.thresholds
        if threshold is None and own is not None:
            self.threshold = own.get(fmr)
        elif threshold is None:
            with suppress(NotCalibrated):
                self.threshold = calibration.threshold(protector.recognizer.card, fmr).cosine

    def compare(self, gallery: Gallery, probes: Tensor, names: Sequence[str]) -> Comparison:
        """One-sided matching, what happens at a door.

        Args:
            gallery: N faces.
            probes: (M, 3, 112, 112) in [0, 1], unprotected and aligned.
            names: What the probes are called.

        Raises:
            UsageError: when the gallery is another protector's or recogniser's, or not of the form that it writes.
            NumericalFailure: when a score is not a number.
        """
        self._require_written(gallery.representation)
        return self._compared(gallery, names, self.protector.match_clean(gallery.representation, probes))

    def compare_galleries(self, gallery: Gallery, probes: Gallery) -> Comparison:
        """Two-sided matching: both sides are stored.

        Raises:
            UsageError: when either is another protector's or recogniser's, or not of the form that it writes.
            NumericalFailure: when a score is not a number.
        """
        for one in (gallery, probes):
            self._require_written(one.representation)
        scores = self.protector.match(gallery.representation, probes.representation)
        return self._compared(gallery, probes.names, scores)

    def _require_written(self, representation: Representation) -> None:
        self.protector.require_own(representation)
        if representation.storage != self.protector.storage:
            raise UsageError(
                f"{self.protector.name} stores {self.protector.storage}, not {representation.storage}.",
                hint="Protect the faces again.",
            )

    def _compared(self, gallery: Gallery, names: Sequence[str], scores: Tensor) -> Comparison:
        if not bool(scores.isfinite().all()):
            raise NumericalFailure("A score is not a number.", hint="Protect the faces again.")
        fmr = self._fmr if self.threshold is not None else None
        return Comparison(gallery.names, tuple(names), scores, self.threshold, fmr)
