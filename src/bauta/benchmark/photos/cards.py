"""Result cards of photos, schema `bauta.benchmark/2`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from bauta.benchmark.engine.records import Cosine, Network, PairSetFacts, RowRecord, Run
from bauta.metrics import Interval
from bauta.recognizers.calibration import Threshold
from bauta.schema import ABSENT, Count, Pattern, Sha256
from bauta.settings import Range, Share

Jpeg = Annotated[str, Pattern("^data:image/jpeg;base64,[A-Za-z0-9+/=]*$")]
Rank = Annotated[int, Range(at=1)]
Cosines = dict[str, Cosine]


@dataclass(frozen=True)
class Method:
    """What protected the photos.

    Attributes:
        name: Registered, or as whoever brought the photos called it.
        kind: Whether it is a cloak, what cloaks are compared with, or a folder of photos that came protected.
        origin: Whose it is.
        config: Its settings.
    """

    name: str
    kind: Literal["cloak", "reference", "folder"]
    origin: str
    config: dict[str, Any]


@dataclass(frozen=True)
class PhotoJudge(Network):
    """A recogniser that judges.

    Attributes:
        attacked: Whether the row attacked it, or one that learned from it.
        threshold: From which it says yes.
    """

    attacked: bool
    threshold: Threshold


@dataclass(frozen=True)
class Searched:
    """What was searched beside the other photos of the pairs' people.

    Attributes:
        name: Of the set of strangers; "" without any.
        strangers: How many.
        targets: How many pictures of the targets.
        sha256: Of the strangers' photos; "" without any.
    """

    name: str
    strangers: Count
    targets: Count
    sha256: Annotated[str, Pattern("^([0-9a-f]{64})?$")]


@dataclass(frozen=True)
class ByJudge:
    """A share of pairs, as judges see it.

    Attributes:
        mean: Over all judges.
        independent: Over those that were not attacked.
        judges: Each.
    """

    mean: Interval | None
    independent: Interval | None
    judges: dict[str, Interval | None]


@dataclass(frozen=True)
class Searches:
    """Success of searches, by rank N.

    Attributes:
        untargeted: The person is not among the first N.
        targeted: A target is.
    """

    untargeted: dict[str, ByJudge]
    targeted: dict[str, ByJudge]


@dataclass(frozen=True)
class Identification:
    """Searches for one photo of each person.

    Attributes:
        probes: How many.
        cells: By which photo is protected.
    """

    probes: Annotated[int, Range(at=1)]
    cells: dict[str, Searches]


@dataclass(frozen=True)
class Snowball:
    """Protected photos that are recognised, where each that is joins the gallery.

    Attributes:
        photos: How many protected photos are searched for.
        first: Shares that the first round recognises.
        last: Shares that are recognised in the end.
    """

    photos: Annotated[int, Range(at=1)]
    first: ByJudge
    last: ByJudge


@dataclass(frozen=True)
class PhotoResults:
    """Figures, which follow from the records by `bauta.benchmark.photos.results.summarise`.

    Attributes:
        pairs: How many there were.
        usable: How many had a face on both sides.
        subjects: How many people those show.
        recognised_before: By judge, unprotected pairs that it recognises: those count.
        dodging: By transport.
        dodging_self: Of the protected photo against the original.
        matches_target: How often the target of impersonation is matched.
        matches_target_before: How often it was without protection.
        detected: By transport, how often the face is found.
        quality: By measure.
        largest_difference: Of a pixel, in 1/255.
        iterations: Mean of the pairs.
        cells: Dodging by which photo of a pair is protected; there when both were.
        identification: There when a gallery was searched.
        snowball: There when both photos of several pairs of a person were protected.
    """

    pairs: Count
    usable: Count
    subjects: Count
    recognised_before: dict[str, Count]
    dodging: dict[str, ByJudge]
    dodging_self: Interval | None
    matches_target: Interval | None
    matches_target_before: Interval | None
    detected: dict[str, Interval | None]
    quality: dict[str, Interval | None]
    largest_difference: float | None
    iterations: float | None
    cells: dict[str, ByJudge] = ABSENT
    identification: Identification = ABSENT
    snowball: Snowball = ABSENT


@dataclass(frozen=True)
class SetQuality:
    """Of all aligned faces before and after.

    Attributes:
        faces: How many.
        mmd: Maximum mean discrepancy.
        frechet_onet: Fréchet distance on MTCNN's output network; not FID, which is on Inception.
    """

    faces: Count
    mmd: float | None
    frechet_onet: float | None


@dataclass(frozen=True)
class Curve:
    """Points of a detection error trade-off.

    Attributes:
        fmr: False match rates.
        fnmr: False non-match rates there.
    """

    fmr: list[Share]
    fnmr: list[Share]


@dataclass(frozen=True)
class TradeOffs:
    """Detection error trade-offs over all pairs of the photos at hand; empty when these are too few.

    Attributes:
        impostor_pairs: How many pairs of different people.
        curves: By judge and cell.
    """

    impostor_pairs: Annotated[int, Range(at=100)] = ABSENT
    curves: dict[str, dict[str, Curve]] = ABSENT


@dataclass(frozen=True)
class Passes:
    """Images through surrogates while masks were made.

    Attributes:
        forward: How many.
        backward: How many came back as gradients.
    """

    forward: Count
    backward: Count


@dataclass(frozen=True)
class Ranks:
    """At which rank a search finds whom.

    Attributes:
        person: The person.
        target: The first of the targets; None without any.
    """

    person: Rank | None
    target: Rank | None


@dataclass(frozen=True)
class PhotoRecord:
    """One pair. What was measured is missing where it failed.

    Attributes:
        subject: The person.
        protected: Name of the photo that was protected.
        reference: Name of the other.
        sha256: Of both, and of the protected one when it was made elsewhere.
        failure: Why the pair was not measured.
        quality: By measure.
        largest_difference: Of a pixel, in 1/255.
        iterations: That the mask took.
        before: By judge, cosine of the original and the reference.
        self: Of the protected photo and the original.
        after: By transport and judge, of the protected photo and the reference.
        target_before: Of the original and the nearest target.
        target_after: Of the protected photo and the nearest target.
        detected: By transport, whether the face was found.
        cells: By judge and cell, where the reference is protected too.
        ranks: By judge and cell, in the gallery; of one pair of each person.
        joined: By judge, in which round of a snowball the two protected photos were recognised, 0 for never; None for
            the one whose original the search began with.
    """

    subject: str
    protected: str
    reference: str
    sha256: Annotated[list[Sha256], Range(at=2)]
    failure: str | None
    quality: dict[str, float | None] = ABSENT
    largest_difference: float | None = ABSENT
    iterations: int | None = ABSENT
    before: Cosines = ABSENT
    self: Cosines = ABSENT
    after: dict[str, Cosines] = ABSENT
    target_before: Cosines = ABSENT
    target_after: Cosines = ABSENT
    detected: dict[str, bool] = ABSENT
    cells: dict[str, Cosines] = ABSENT
    ranks: dict[str, dict[str, Ranks]] = ABSENT
    joined: dict[str, list[Count | None]] = ABSENT


@dataclass(frozen=True)
class PhotoExample:
    """Pictures of a face.

    Attributes:
        record: Number of its record.
        before: As it was.
        after: As it was saved.
    """

    record: Count
    before: Jpeg
    after: Jpeg


@dataclass(frozen=True, kw_only=True)
class PhotoRun(Run):
    """Time and machine.

    Attributes:
        seconds_per_face: To protect one.
    """

    seconds_per_face: float | None


@dataclass(frozen=True, kw_only=True)
class PhotoCard(RowRecord):
    """A method on pairs of photos.

    Attributes:
        method: What protects.
        fmr: False match rate of the thresholds.
        transports: What happens to a photo before it is judged.
        face: Which face of a photo counts.
        compared_with: What the protected photo is compared with.
        data: The photos.
        surrogates: Recognisers that were attacked.
        judges: Recognisers that judge.
        lpips_sha256: Of the weights of LPIPS, if they were given.
        gallery: What was searched beside the other photos of the pairs' people.
        results: Figures, which follow from the records.
        set_quality: Of all aligned faces before and after.
        det: Detection error trade-offs.
        passes: Images through surrogates while masks were made.
        records: A pair each.
        examples: Pictures.
    """

    schema: Literal["bauta.benchmark/2"]
    method: Method
    fmr: Share
    transports: Annotated[list[str], Range(at=1)]
    face: Literal["central", "largest", "aligned"]
    compared_with: Literal["another photo", "the original"]
    data: PairSetFacts
    surrogates: list[Network]
    judges: Annotated[list[PhotoJudge], Range(at=1)]
    lpips_sha256: Sha256 = ABSENT
    gallery: Searched = ABSENT
    results: PhotoResults
    set_quality: SetQuality = ABSENT
    det: TradeOffs = ABSENT
    passes: Passes
    records: Annotated[list[PhotoRecord], Range(at=1)]
    examples: list[PhotoExample]
    run: PhotoRun
