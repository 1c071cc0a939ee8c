"""Result cards of what a face service stores, schema `bauta.templates/1`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from bauta.attacks.cards import AttackerCard
from bauta.benchmark.engine.records import FaceSetFacts, Network, PairSetFacts, RowRecord, Run
from bauta.metrics import Interval
from bauta.schema import ABSENT, Key, Pattern, Sha256
from bauta.settings import Range, Share

Jpeg = Annotated[str, Pattern("^data:image/jpeg;base64,")]
ByRate = dict[str, Interval]
"""By false match rate."""


@dataclass(frozen=True)
class Learned:
    """What a protector learned from."""

    data: str
    licence: str
    seed: int


@dataclass(frozen=True)
class ProtectorFacts:
    """What protects.

    Attributes:
        name: Registered.
        kind: What it stores.
        paper: Citation.
        keyed: Whether the deployment has a key.
        settings: Plain values.
        storage: Type of the stored numbers; "" for the protector's own.
        sha256: Of the protector with its learned parts.
        learned: From what.
        sealed: Records are encrypted; attackers read the ciphertext.
    """

    name: str
    kind: Literal["image", "frequency", "feature", "template"]
    paper: str
    keyed: bool
    settings: dict[str, Any]
    storage: str
    sha256: Sha256
    learned: Learned
    sealed: Literal[True] = ABSENT


@dataclass(frozen=True)
class Limit:
    """From which cosine on two are one person; see `bauta.recognizers.calibration.Threshold`."""

    fmr: Share
    cosine: float
    impostor_pairs: int
    people: int
    calibration_set: str
    calibration_sha256: Sha256
    date: str = ABSENT


@dataclass(frozen=True)
class StoreData:
    """Sets of people, disjoint by name.

    Attributes:
        evaluation: To verify.
        protector: Whom protectors are fitted on.
        attacker: Whom attackers learn from.
        victims: How many faces are attacked.
        asked: How many of their faces attackers had protected.
    """

    evaluation: Annotated[list[PairSetFacts], Range(at=1)]
    protector: FaceSetFacts
    attacker: FaceSetFacts
    victims: int
    asked: int


@dataclass(frozen=True)
class StoreAttacker(AttackerCard):
    """An attacker, and how its training ended.

    Attributes:
        fitted: Losses and time.
    """

    fitted: dict[str, float] = field(kw_only=True)


@dataclass(frozen=True)
class Mode:
    """Accuracy on one set of pairs.

    Attributes:
        accuracy: Of pairs, with thresholds from the other folds.
        fold_error: Standard error over folds.
        auroc: Area under the curve.
        loss: Clean less this, pair by pair.
        tar: True accept rate at a threshold calibrated elsewhere, by false match rate.
        false_matches: Share of pairs of different people that match there, by false match rate.
    """

    accuracy: Interval
    fold_error: float
    auroc: Share
    loss: Interval = ABSENT
    tar: ByRate = ABSENT
    false_matches: ByRate = ABSENT


@dataclass(frozen=True)
class Modes:
    """Accuracy on one set of pairs: clean, with one side protected, and with both."""

    clean: Mode
    one_sided: Annotated[Mode, Key("one-sided")]
    two_sided: Annotated[Mode, Key("two-sided")]


@dataclass(frozen=True)
class Losses:
    """What is lost with one side protected, and with both."""

    one_sided: Annotated[Interval, Key("one-sided")]
    two_sided: Annotated[Interval, Key("two-sided")]


@dataclass(frozen=True)
class Baseline:
    """What a row loses pair by pair to the row that it is compared with, by set."""

    row: str
    loss: dict[str, Losses]


@dataclass(frozen=True)
class BlackBox:
    """Accuracy of judges on stored images, by judge and set, and the mean loss of all by set."""

    judges: dict[str, dict[str, Modes]]
    mean_loss: dict[str, Losses]


@dataclass(frozen=True)
class Recovery:
    """What an attacker, or a reference, recovers.

    Attributes:
        victims: How many.
        mse: In squared shares of full scale.
        psnr: In dB.
        ssim: Structural similarity.
        identity: Cosine to the person.
        replay: By recogniser, type I or II, and false match rate.
    """

    victims: int
    mse: Interval
    psnr: Interval | None
    ssim: Interval
    identity: Interval | None
    replay: dict[str, dict[str, ByRate]]


@dataclass(frozen=True)
class Strongest:
    """The attacker whose replay succeeds most often, and how often."""

    attacker: str
    mean: Share
    low: Share
    high: Share


@dataclass(frozen=True)
class Irreversibility:
    """The strongest replay at a false match rate, by recogniser and type."""

    fmr: Share
    by: dict[str, Strongest]


@dataclass(frozen=True)
class Privacy:
    """The composite score of adaptive hybrid masking, and its parts."""

    s1: Interval
    s2: Interval
    s3: Interval
    s4: Interval
    score: Interval


@dataclass(frozen=True)
class PairFigures:
    """How well pairs are told apart."""

    auroc: Share
    accuracy: Interval


@dataclass(frozen=True)
class Linkage:
    """What is linked in one way.

    Attributes:
        face_template: Faces to representations.
        template_template: Representations to each other.
        rank_1: How often the person is first in a search.
        gallery: Of how many.
    """

    face_template: PairFigures
    template_template: PairFigures
    rank_1: Interval
    gallery: int


@dataclass(frozen=True)
class Linkability:
    """ISO/IEC 30136's linkability.

    Attributes:
        system: D_sys.
        null: What so few scores make of it where nothing is linked.
        maximal: Of the best score.
    """

    system: Share
    null: Interval
    maximal: Share


@dataclass(frozen=True, kw_only=True)
class StrongestLink(Linkability):
    """The strongest way to link.

    Attributes:
        strongest: Its name; the figures are of it.
        by: All ways.
    """

    strongest: str
    by: dict[str, Linkability]


@dataclass(frozen=True)
class Unlinkability:
    """In the sense of ISO/IEC 24745.

    Attributes:
        keyed: Whether the two representations are under different keys.
        key_secret: Without the key.
        key_stolen: With it.
        mated: Pairs of one person.
        bins: Of the scores.
    """

    keyed: bool
    key_secret: StrongestLink
    key_stolen: StrongestLink
    mated: int
    bins: int


@dataclass(frozen=True)
class Renewability:
    """Templates of one person under the old and the new key, against those of different people."""

    keyed: bool
    distance: Share
    matching: ByRate


@dataclass(frozen=True)
class Milliseconds:
    """Of one face on one thread: to enrol, to make a clean template of a probe, to read a stored template."""

    enrol: float
    recognise: float
    match: float


@dataclass(frozen=True)
class Cost:
    """Of one face.

    Attributes:
        bytes: Stored.
        storage: Type of the numbers.
        of_an_image: Bytes over those of a crop.
        of_a_template: Bytes over those of a template.
        milliseconds: To enrol, to make a clean template of a probe, to read a stored template.
    """

    bytes: int
    storage: str
    of_an_image: float
    of_a_template: float
    milliseconds: Milliseconds


@dataclass(frozen=True)
class Opened:
    """What a key opens of the victims' rows.

    Attributes:
        tar: Share that match another photo of the victim.
        rank_1: Share that find it first.
    """

    tar: Interval
    rank_1: Interval


@dataclass(frozen=True, kw_only=True)
class KeyTry(Opened):
    """What a recovered key opens.

    Attributes:
        knows: What the attacker knew.
        positions: Share of positions recovered with their signs; null where there are none.
    """

    knows: str
    positions: Share | None


@dataclass(frozen=True)
class KeyRecovery:
    """What an attacker recovered of a key.

    Attributes:
        map: What the key does.
        fmr: False match rate of the threshold.
        gallery: How many victims.
        true_key: What the true key opens.
        tries: By what was known.
    """

    map: Literal["permutation", "rotation", "sealed"]
    fmr: Share
    gallery: int
    true_key: Opened
    tries: Annotated[list[KeyTry], Range(at=1)]


@dataclass(frozen=True)
class Invariants:
    """What sorted magnitudes link without a key.

    Attributes:
        auroc: Of rows of one person and of different people.
        rank_1: How often the row is first.
        gallery: Of how many.
        member_auroc: Whether somebody is in the store.
    """

    auroc: Share
    rank_1: Interval
    gallery: int
    member_auroc: Share


@dataclass(frozen=True, kw_only=True)
class StoreResults:
    """Figures.

    Attributes:
        accuracy: By set.
        baseline: What the row loses to the row that it is compared with.
        black_box: Accuracy of judges on stored images; only where images are stored.
        recovery: By attacker and reference.
        self_match: By recogniser and false match rate: of both photos of the victims.
        irreversibility: The strongest replay.
        privacy: By attacker; missing where stored numbers are not looked at as pictures.
        linkage: By way to link.
        unlinkability: In the sense of ISO/IEC 24745.
        renewability: In that sense.
        cost: Of one face.
        keys: What attackers recovered of a key, by attacker, measured by what it opens of the victims' rows.
        invariants: What sorted magnitudes link without a key, by attacker and by the photo that is known.
    """

    accuracy: dict[str, Modes]
    baseline: Baseline = ABSENT
    black_box: BlackBox = ABSENT
    recovery: dict[str, Recovery]
    self_match: dict[str, ByRate]
    irreversibility: Irreversibility
    privacy: dict[str, Privacy] = ABSENT
    linkage: dict[str, Linkage]
    unlinkability: Unlinkability
    renewability: Renewability
    cost: Cost
    keys: dict[str, KeyRecovery] = ABSENT
    invariants: dict[str, dict[str, Invariants]] = ABSENT


@dataclass(frozen=True)
class Recovered:
    """What was recovered of a victim.

    Attributes:
        mse: In squared shares of full scale.
        ssim: Structural similarity.
        scores: Type I and type II cosines, by recogniser and by the system.
    """

    mse: float
    ssim: float
    scores: dict[str, Annotated[list[float], Range(at=1)]]


@dataclass(frozen=True)
class StoreRecord:
    """A victim: by recogniser the cosine of both photos, and what attackers recovered."""

    subject: str
    self: dict[str, float]
    recovered: dict[str, Recovered]


@dataclass(frozen=True)
class StoreExample:
    """Pictures of the victim of a record, by what they show."""

    record: int
    pictures: dict[str, Jpeg]


@dataclass(frozen=True, kw_only=True)
class StoreRun(Run):
    """Time and machine.

    Attributes:
        device: Where protectors and attackers computed: cpu, or the name of an accelerator. Judges are always on the
            CPU.
    """

    device: str = ABSENT


@dataclass(frozen=True, kw_only=True)
class StoreCard(RowRecord):
    """A protector and its attackers.

    Attributes:
        key: Digest of all that decides the card: a run is not repeated while it stays the same.
        protector: What protects.
        recognizer: Whose templates are protected.
        judges: Recognisers that no attacker saw.
        thresholds: By recogniser; `system` compares a stored representation with a clean probe.
        fmrs: False match rates.
        data: Sets of people, disjoint by name.
        attackers: Who attacks.
        results: Figures.
        records: A victim each.
        examples: Pictures.
    """

    schema: Literal["bauta.templates/1"]
    key: Sha256
    protector: ProtectorFacts
    recognizer: Network
    judges: Annotated[list[Network], Range(at=1)]
    thresholds: dict[str, Annotated[list[Limit], Range(at=1)]]
    fmrs: Annotated[list[Share], Range(at=1)]
    data: StoreData
    attackers: list[StoreAttacker]
    results: StoreResults
    records: Annotated[list[StoreRecord], Range(at=1)]
    examples: list[StoreExample]
    run: StoreRun
