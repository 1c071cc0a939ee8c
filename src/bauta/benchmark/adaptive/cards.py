"""Result cards of attackers who purify and adapt, schema `bauta.adaptive/1`. Shares are in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bauta.attacks.cards import AttackerCard
from bauta.benchmark.engine.records import Cosine, FaceSetFacts, Network, PairSetFacts, RowRecord
from bauta.metrics import Interval
from bauta.recognizers.calibration import Threshold
from bauta.schema import Count, Key
from bauta.settings import Range, Share


@dataclass(frozen=True)
class CropMethod:
    """What protects crops, and its settings."""

    name: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluated(PairSetFacts):
    """Pairs of crops, and how many people they show."""

    people: Count


@dataclass(frozen=True)
class AdaptiveData:
    """Sets of people, disjoint by name: who is protected and judged, who is trained on, who calibrates."""

    evaluation: Evaluated
    training: FaceSetFacts
    calibration: FaceSetFacts


@dataclass(frozen=True)
class NewerJudge(Network):
    """A newer recogniser, with the threshold that is stored for it."""

    threshold: Threshold


@dataclass(frozen=True)
class AdaptiveAttacker(Network):
    """The attacker's own recogniser.

    Attributes:
        trained_on: The row whose photos it saw; all for every row's; empty for none.
        threshold: Found on clean pairs of different people of data.calibration, after training.
        card: Who it is; None as it came.
    """

    trained_on: str
    threshold: Cosine
    card: AttackerCard | None


@dataclass(frozen=True)
class NewerFigures:
    """Dodging of newer recognisers: the mean, and each."""

    mean: Interval | None
    judges: dict[str, Interval | None]


@dataclass(frozen=True)
class AttackerFigures:
    """How often an attacker is dodged, of how many pairs that it knew, and how often it takes others for the person."""

    recognised_before: Count
    dodging: Interval | None
    false_matches: Interval | None


@dataclass(frozen=True)
class AdaptiveResults:
    """Figures, which follow from the records by `bauta.benchmark.adaptive.results.summarise`.

    Attributes:
        pairs: How many.
        subjects: How many people.
        psnr: Of the protected crops, in dB.
        ssim: Of them.
        recognised_before: By judge, unprotected pairs it recognises: those count.
        false_matches: Share of other people's clean crops that a protected crop matches, mean of judges.
        newer: By purifier: dodging of newer recognisers.
        attackers: By attacker, as name/trained_on.
    """

    pairs: Count
    subjects: Count
    psnr: Interval | None
    ssim: Interval | None
    recognised_before: dict[str, Count]
    false_matches: Interval | None
    newer: dict[str, NewerFigures]
    attackers: dict[str, AttackerFigures]


@dataclass(frozen=True)
class JudgeScores:
    """Cosines to the reference, after by purifier; and the share of others' clean crops that the crop matches."""

    before: Cosine
    after: dict[str, Cosine]
    wrong: Annotated[Share, Key("false")]


@dataclass(frozen=True)
class AttackerScores:
    """Cosines to the reference, and the share of others' clean crops that the crop matches."""

    before: Cosine
    after: Cosine
    wrong: Annotated[Share, Key("false")]


@dataclass(frozen=True)
class AdaptiveRecord:
    """One pair: names of the photos, quality of the crop, and scores by judge and by attacker."""

    subject: str
    protected: str
    reference: str
    psnr: float | None
    ssim: float
    judges: dict[str, JudgeScores]
    attackers: dict[str, AttackerScores]


@dataclass(frozen=True, kw_only=True)
class AdaptiveCard(RowRecord):
    """One method on pairs of aligned crops, before newer recognisers and attackers who trained on protected crops.

    Attributes:
        row: Name of the row.
        method: What protects.
        surrogates: Recognisers that the masks were made against.
        fmr: False match rate of the thresholds.
        data: Sets of people, disjoint by name.
        recognizer: The attacker's own, before any training.
        judges: Newer recognisers, with the thresholds that are stored for them.
        purifiers: What purifies.
        attackers: The attacker's own recogniser as it came, and after training.
        results: Figures, which follow from the records.
        records: A pair each.
    """

    schema: Literal["bauta.adaptive/1"]
    row: str
    method: CropMethod
    surrogates: list[Network]
    fmr: Share
    data: AdaptiveData
    recognizer: Network
    judges: Annotated[list[NewerJudge], Range(at=1)]
    purifiers: list[AttackerCard]
    attackers: Annotated[list[AdaptiveAttacker], Range(at=1)]
    results: AdaptiveResults
    records: Annotated[list[AdaptiveRecord], Range(at=1)]
