"""What cards of encrypted matching hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bauta.benchmark.engine.records import Cosine, RowRecord, Run
from bauta.schema import Count


@dataclass(frozen=True)
class Traffic:
    """Bytes of one decision.

    Attributes:
        up: The probe.
        down: The answer.
        compared: Of the comparison, both ways.
        dealt: From the dealer to one side.
        rounds: Of the comparison.
    """

    up: Count
    down: Count
    compared: Count
    dealt: Count
    rounds: Count


@dataclass(frozen=True)
class EncryptedResults:
    """What a row measures, time apart.

    Attributes:
        scores: How many were opened and compared with those in the clear; the protocol opens none.
        wrong_by_one: Scores that differ by one of 512 squared.
        wrong_by_more: Scores that differ by more.
        decisions: How many probes were decided.
        found: How many of them match somebody in the clear.
        decisions_differ: How many decisions are not the plain ones: another first match, or another bit.
        traffic: Of a decision.
        gallery_bytes: The encoded gallery in memory.
    """

    scores: Count
    wrong_by_one: Count
    wrong_by_more: Count
    decisions: Count
    found: Count
    decisions_differ: Count
    traffic: Traffic
    gallery_bytes: Count


@dataclass(frozen=True)
class Spent:
    """Seconds of each step, medians where it was done several times: of the clock, or of this process.

    Attributes:
        encode: The gallery, once.
        encrypt: A probe.
        answer: A probe, with nothing drawn ahead.
        draw: The masks of one probe.
        answer_ahead: A probe, its masks drawn ahead.
        answer_together: Each of several probes, their masks drawn ahead.
        decrypt: An answer.
        compare: Both sides of the comparison of one probe.
        add: A person.
        erase: A person.
        numpy: A search in the clear.
        faiss: The same by faiss in 8 bits; 0 where it is not installed.
    """

    encode: float
    encrypt: float
    answer: float
    draw: float
    answer_ahead: float
    answer_together: float
    decrypt: float
    compare: float
    add: float
    erase: float
    numpy: float
    faiss: float


@dataclass(frozen=True, kw_only=True)
class EncryptedRun(Run):
    """Time and machine.

    Attributes:
        clock: By the clock.
        processor: By the processor, without worker processes.
        peak_bytes: Most memory of this process up to the end of the row, before the searches in the clear.
    """

    clock: Spent
    processor: Spent
    peak_bytes: Count


@dataclass(frozen=True, kw_only=True)
class EncryptedCard(RowRecord):
    """A gallery of random templates, searched under encryption.

    Attributes:
        key: Digest of all that decides it.
        people: Enrolled.
        dimension: Values of a template.
        split: Pieces of a template.
        workers: Processes that share the gallery.
        cosine: From which on somebody matches.
        genuine: Cosine of every other probe to somebody there.
        results: What was measured.
    """

    schema: Literal["bauta.encrypted/1"]
    key: str
    people: Count
    dimension: Count
    split: Count
    workers: Count
    cosine: Cosine
    genuine: Cosine
    results: EncryptedResults
    run: EncryptedRun
