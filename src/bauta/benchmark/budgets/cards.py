"""What cards of budgets hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bauta.benchmark.engine.records import FaceSetFacts, Network, RowRecord
from bauta.metrics import Interval
from bauta.schema import ABSENT, Count
from bauta.settings import Share


@dataclass(frozen=True)
class Budget:
    """What is spent; see `bauta.privacy.mechanisms.Spent`.

    Attributes:
        value: Epsilon of a number.
        photo: Of a photo.
        enrolled: Of a person of whom the enrolled photos are stored, and no probe.
        person: Of a person of whom all photos are released, probes among them.
        words: The last in a sentence.
    """

    value: float
    photo: float
    enrolled: float
    person: float
    words: str


@dataclass(frozen=True)
class Verification:
    """One photo against one.

    Attributes:
        tmr_1e2: True match rate at an FMR of 1e-2, bootstrapped by person.
        tmr_1e3: At 1e-3.
        auroc: Area under the curve.
        threshold: At 1e-3.
        genuine: Scores.
        impostors: Scores.
    """

    tmr_1e2: Interval
    tmr_1e3: Interval
    auroc: Share
    threshold: float
    genuine: Count
    impostors: Count


@dataclass(frozen=True)
class Recognition:
    """How well people are recognised.

    Attributes:
        verification: Single photos.
        rank_one: Share of probes whose best match, among so many people with several photos enrolled each, is right.
    """

    verification: Verification
    rank_one: Interval


@dataclass(frozen=True)
class Recovered:
    """What an attacker, who learned on releases of other people, computes back.

    Attributes:
        records: Releases of each person, of different photos, that are averaged.
        cosine: To the template of the enrolled photo.
        same: Share that the recogniser accepts for the enrolled photo, at an FMR of 1e-3.
        other: For another photo of the person, none of those released.
    """

    records: Count
    cosine: Interval
    same: Interval
    other: Interval


@dataclass(frozen=True)
class Pictures:
    """Pictures computed back from one release.

    Attributes:
        ssim: To the photo.
        same: Share that the recogniser accepts for the photo, at an FMR of 1e-3.
        other: For another photo of the person.
    """

    ssim: Interval
    same: Interval
    other: Interval


@dataclass(frozen=True)
class Networks:
    """What networks compute back that learned on releases of other people.

    Attributes:
        examples: Releases that they learned from.
        epochs: Of the network that gives templates, chosen on people from whom it does not learn.
        templates: As of the linear attacker.
        pictures: As of the linear attacker.
        linked: Releases of different photos, compared by the templates computed back from each.
    """

    examples: Count
    epochs: Count
    templates: list[Recovered]
    pictures: Pictures
    linked: Recognition


@dataclass(frozen=True)
class Audited:
    """What a distinguishing attack shows.

    Attributes:
        claim: Epsilon.
        found: Spent at least, at 99 %.
        most: What so many trials could show at most.
        trials: Releases of each of the two photos that the bound rests on.
    """

    claim: float
    found: float
    most: float
    trials: Count


@dataclass(frozen=True)
class BudgetFigures:
    """What a row measures.

    Attributes:
        budget: What is spent.
        values: Numbers that are stored of a photo.
        plain: The recogniser's own templates.
        one_sided: What is stored has noise, and the face at the door has none and is not released.
        two_sided: Both are released.
        templates: Computed back by a linear map from one release, and from several.
        pictures: Computed back likewise.
        value_audit: Of one number.
        photo_audit: Of all together.
        linked: Releases of different photos, compared by the templates that the linear attacker computes back.
        networks: Another attacker; cards of before lack it.
    """

    budget: Budget
    values: Count
    plain: Recognition
    one_sided: Recognition
    two_sided: Recognition
    templates: list[Recovered]
    pictures: Pictures
    value_audit: Audited
    photo_audit: Audited
    linked: Recognition = ABSENT
    networks: Networks = ABSENT


@dataclass(frozen=True, kw_only=True)
class BudgetCard(RowRecord):
    """A mechanism at one budget, on one set of people.

    Attributes:
        key: Digest of all that decides it.
        recognizer: Whose templates these are, and who judges.
        method: Protector.
        options: All its settings.
        data: The photos.
        public: People whom protector and attacker learned from.
        figures: What was measured.
    """

    schema: Literal["bauta.budgets/1"]
    key: str
    recognizer: Network
    method: str
    options: dict[str, Any]
    data: FaceSetFacts
    public: Count
    figures: BudgetFigures
