"""What cards of certified answers hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from bauta.benchmark.engine.records import Cosine, FaceSetFacts, Network, PairSetFacts, RowRecord, Run
from bauta.metrics import Interval
from bauta.schema import Count
from bauta.settings import Range, Share


@dataclass(frozen=True)
class Calibration:
    """Where the threshold comes from.

    Attributes:
        data: Photos of people of whom none is in a pair.
        fmr: False match rate, without noise.
        cosine: From which on a pair matches.
        impostor_pairs: How many it rests on.
    """

    data: FaceSetFacts
    fmr: Share
    cosine: Cosine
    impostor_pairs: Count


@dataclass(frozen=True)
class CertifiedSide:
    """Pairs of one sort.

    Attributes:
        plain: Share accepted without noise.
        accepted: Share certified as accepted, at any radius.
        rejected: Share certified as rejected, at any radius.
        abstained: Share without an answer.
        within: Share certified with the right answer at each radius that is asked for.
    """

    plain: Interval
    accepted: Interval
    rejected: Interval
    abstained: Interval
    within: list[Interval]


@dataclass(frozen=True)
class CertifiedResults:
    """What a row measures; intervals are those of Clopper and Pearson, a pair of each person.

    Attributes:
        plain: Share of genuine pairs accepted without noise, of `plain_pairs`.
        genuine: Pairs of one person, under noise.
        impostors: Pairs of different people.
    """

    plain: Interval
    genuine: CertifiedSide
    impostors: CertifiedSide


@dataclass(frozen=True)
class CertifiedRecord:
    """A face compared with another photo of its person, and with one of somebody else.

    Attributes:
        subject: Whose face it is.
        other: Who else.
        genuine: Copies accepted as the person.
        impostor: Copies accepted as the other.
        genuine_cosine: Without noise.
        impostor_cosine: Without noise.
    """

    subject: str
    other: str
    genuine: Count
    impostor: Count
    genuine_cosine: Cosine
    impostor_cosine: Cosine


@dataclass(frozen=True, kw_only=True)
class CertifiedRun(Run):
    """Time and machine.

    Attributes:
        decision_seconds: Of the processor, to draw, embed and compare the copies of a face, median.
    """

    decision_seconds: float


@dataclass(frozen=True, kw_only=True)
class CertifiedCard(RowRecord):
    """A recogniser at one strength of noise.

    Attributes:
        key: Digest of all that decides it.
        recognizer: Whose answers.
        sigma: Of the noise.
        n: Copies of each face.
        alpha: Greatest probability that a certificate is wrong.
        enrolment: Noisy copies of each reference; they count apart.
        radii: Those asked for.
        plain_pairs: Genuine pairs for the accuracy without noise, which costs less to measure.
        data: The pairs.
        calibration: Of the threshold.
        results: What was measured.
        records: A face each.
    """

    schema: Literal["bauta.certified/1"]
    key: str
    recognizer: Network
    sigma: float
    n: Count
    alpha: float
    enrolment: Count
    radii: list[float]
    plain_pairs: Count
    data: PairSetFacts
    calibration: Calibration
    results: CertifiedResults
    records: Annotated[list[CertifiedRecord], Range(at=1)]
    run: CertifiedRun
