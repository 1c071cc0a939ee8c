"""What cards of cancelable templates hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bauta.benchmark.engine.records import FaceSetFacts, Network, RowRecord, Run
from bauta.metrics import Interval
from bauta.schema import Count
from bauta.settings import Share


@dataclass(frozen=True)
class Recognition:
    """How well people are recognised.

    Attributes:
        tmr: True match rate at an FMR of 1e-3, bootstrapped by person.
        threshold: Score from which on a probe matches, set on the same impostors.
        genuine: Scores.
        impostors: Scores.
    """

    tmr: Interval
    threshold: float
    genuine: Count
    impostors: Count


@dataclass(frozen=True)
class Linkage:
    """Whether references of one person under different tokens are told from those of different people.

    Attributes:
        d_sys: Of Gomez-Barrero et al., 0 to 1.
        null: The same with shuffled labels: what unlinkable ones give.
        maximal: Maximal linkability, in bits, 0 to 1.
        mated: Scores of one person.
    """

    d_sys: float
    null: Interval
    maximal: float
    mated: Count


@dataclass(frozen=True)
class Renewal:
    """Whether an old reference still answers to a person who was enrolled anew.

    Attributes:
        distance: Of Kolmogorov and Smirnov, between scores of old against new codes of one person, and those of
            different people.
        null: 95th percentile of the same with shuffled labels.
        matched: Share of the former that pass the threshold of stolen tokens.
    """

    distance: float
    null: float
    matched: Share


@dataclass(frozen=True)
class Inversion:
    """Templates computed back by who has records and tokens.

    Attributes:
        records: Of each person, of one photo under so many tokens.
        cosine: To the enrolled template.
        same: Share accepted by the recogniser alone, at an FMR of 1e-3, against the enrolled photo.
        other: Against another photo of the person.
    """

    records: Count
    cosine: Interval
    same: Interval
    other: Interval


@dataclass(frozen=True)
class CancelableFigures:
    """What a row measures.

    Attributes:
        plain: The recogniser's own templates.
        normal: Each person with a token, and impostors with their own.
        stolen: Impostors have the token of whom they claim to be.
        linkage: Tokens of each person, secret.
        stores: Linkage of two stores with a token each, secret, for each of several pairs of stores.
        known: Linkage of two stores whose tokens the attacker has: cosines of templates computed back.
        renewal: With new tokens.
        inversion: From one record, and from several.
        bytes: Of a code.
    """

    plain: Recognition
    normal: Recognition
    stolen: Recognition
    linkage: Linkage
    stores: list[Linkage]
    known: Linkage
    renewal: Renewal
    inversion: list[Inversion]
    bytes: Count


@dataclass(frozen=True, kw_only=True)
class CancelableRun(Run):
    """Time and machine.

    Attributes:
        enrol_ms: Of the processor, to draw the maps of a token and turn a person's photos, median.
        search_ms: Of the processor, for one probe in `search_codes` codes, on one thread, median; None where codes
            are not bits.
        search_codes: How many.
    """

    enrol_ms: float
    search_ms: float | None
    search_codes: Count


@dataclass(frozen=True, kw_only=True)
class CancelableCard(RowRecord):
    """A scheme on one set of people.

    Attributes:
        key: Digest of all that decides it.
        recognizer: Whose templates these are.
        method: Scheme.
        options: All its settings.
        data: The photos.
        figures: What was measured.
    """

    schema: Literal["bauta.cancelable/1"]
    key: str
    recognizer: Network
    method: str
    options: dict[str, Any]
    data: FaceSetFacts
    figures: CancelableFigures
    run: CancelableRun
