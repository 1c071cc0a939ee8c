"""What is measured of a scheme: recognition, linkage, renewal, and templates computed back."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta import metrics
from bauta.attacks.cancelable import invert
from bauta.benchmark.engine.figures import mean_by_subject, plain, rounded
from bauta.progress import Steps
from bauta.templates.cancelable.base import Binary, CodeIndex, Codes, Scheme

FMR = 1e-3
RECORDS = (1, 2, 3, 5, 10)
STORES = 5  # pairs of stores
LINKED = 200  # people with a second token
KNOWN = (60, 2)  # people and photos whose templates are computed back to link them
BINS = 30
SEARCHED = 1_000_000

Floats = NDArray[np.float32]
Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Faces:
    """Templates of people.

    Attributes:
        templates: (people, photos, D) of unit norm.
        subjects: Names of the people.
        others: (N, D) of other people, whom attackers may know.
    """

    templates: Floats
    subjects: tuple[str, ...]
    others: Floats

    @property
    def start(self) -> Floats:
        """The mean template of other people, from which attackers start."""
        mean: Floats = self.others.mean(0)
        return mean


def secret(seed: int, *place: object) -> bytes:
    """A token of an experiment: 32 bytes that a seed decides. Real ones come from the operating system."""
    return hashlib.sha256(repr((seed, *place)).encode()).digest()


def measure(scheme: Scheme, faces: Faces, victims: int, seed: int, progress: Steps) -> tuple[Figures, Figures]:
    """All figures of a scheme, and what it takes; see `bauta.benchmark.cancelable.cards`."""
    templates, size = faces.templates, faces.templates.shape[-1]
    people = len(templates)
    first, second, stolen, took = [], [], [], []
    for person in range(people):
        began = time.process_time()
        maps = scheme.maps(size, secret(seed, "person", person, 0))
        own = scheme.encode(scheme.project(templates[person], maps))
        took.append(time.process_time() - began)
        # The photo of impostors is their second: the first is enrolled.
        claimed = scheme.encode(scheme.project(templates[:, 1], maps))
        stolen.append(scheme.compare(own[0], claimed))
        first.append(own)
        if person < LINKED:
            second.append(scheme.codes(templates[person], secret(seed, "person", person, 1)))
        progress(person + 1, people + len(RECORDS) + STORES + 1)
    one, two = np.stack(first), np.stack(second)
    strangers = ~np.eye(people, dtype=bool)
    genuine = scheme.compare(one[:, :1], one[:, 1:])
    impostors = np.stack(stolen)[strangers]
    crossed = np.stack([scheme.compare(code, one[:, 1]) for code in one[:, 0]])[strangers]
    at_plain, plain_limit = _recognition(*_plain_scores(faces), faces)
    at_stolen, limit = _recognition(genuine, impostors, faces)
    mated, other = _across(scheme, one[:LINKED], two, seed)
    inversion = []
    for place, count in enumerate(RECORDS):
        inversion.append(_inversion(scheme, faces, victims, count, seed, plain_limit))
        progress(people + place + 1, people + len(RECORDS) + STORES + 1)
    figures = {
        "plain": at_plain,
        "normal": _recognition(genuine, crossed, faces)[0],
        "stolen": at_stolen,
        "linkage": linkage(mated, other, seed),
        "stores": [linkage(*_stores(scheme, faces, draw, seed), seed) for draw in range(STORES)],
        "known": linkage(*_known(scheme, faces, seed), seed),
        "renewal": _renewal(mated, other, limit, seed),
        "inversion": inversion,
        "bytes": int(one[0, 0].nbytes),
    }
    speed = {"enrol_ms": rounded(1000 * np.median(took)), **_search(scheme, seed)}
    return figures, speed


def _plain_scores(faces: Faces) -> tuple[Floats, Floats]:
    enrolled, probes = faces.templates[:, 0], faces.templates[:, 1:]
    genuine = np.einsum("pd,pnd->pn", enrolled, probes)
    impostors = (enrolled @ faces.templates[:, 1].T)[~np.eye(len(enrolled), dtype=bool)]
    return genuine, impostors


def _recognition(genuine: Floats, impostors: Floats, faces: Faces) -> tuple[Figures, float]:
    limit = metrics.threshold_at_fmr(impostors, FMR)
    figures = {
        "tmr": _by_person(genuine >= limit, faces.subjects),
        "threshold": rounded(limit),
        "genuine": int(genuine.size),
        "impostors": int(impostors.size),
    }
    return figures, limit


def _by_person(values: Any, subjects: tuple[str, ...]) -> Figures:
    """The mean of (people, ...) values with its interval."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    return mean_by_subject(flat.mean(1), subjects[: len(flat)])


def _across(scheme: Scheme, one: Codes, two: Codes, seed: int) -> tuple[Floats, Floats]:
    """Scores of the same people's codes under two tokens, and as many of different people's."""
    people = len(one)
    mated = scheme.compare(one[:, :, None], two[:, None])
    # Rolling by a number from 1 to people - 1 pairs each person with another one.
    by = int(np.random.default_rng(seed).integers(1, people))
    return mated, scheme.compare(one[:, :, None], np.roll(two, by, 0)[:, None])


def _stores(scheme: Scheme, faces: Faces, draw: int, seed: int) -> tuple[Floats, Floats]:
    flat = faces.templates.reshape(-1, faces.templates.shape[-1])
    one, two = (
        (lambda codes: codes.reshape(*faces.templates.shape[:2], *codes.shape[1:]))(
            scheme.codes(flat, secret(seed, "store", draw, which))
        )
        for which in (0, 1)
    )
    return _across(scheme, one, two, seed + draw)


def _known(scheme: Scheme, faces: Faces, seed: int) -> tuple[Floats, Floats]:
    """Cosines of what an attacker with both stores' tokens computes back from single records."""
    chosen = faces.templates[: KNOWN[0], : KNOWN[1]]
    people, photos, size = chosen.shape
    found = []
    for which in (0, 1):
        maps = scheme.maps(size, secret(seed, "store", 0, which))
        codes = scheme.encode(scheme.project(chosen.reshape(-1, size), maps))
        found.append(invert(scheme, [codes], [maps], faces.start).reshape(people, photos, size))
    mated = np.einsum("pad,pbd->pab", *found)
    return mated, np.einsum("pad,pbd->pab", found[0], np.roll(found[1], people // 2, 0))


def linkage(mated: metrics.Array, other: metrics.Array, seed: int) -> Figures:
    """D_sys with its value for shuffled labels, and maximal linkability. Scores count by their size, either way."""
    return {
        "d_sys": rounded(metrics.system_linkability(mated, other, bins=BINS)),
        "null": plain(metrics.null_linkability(mated, other, bins=BINS, seed=seed)),
        "maximal": rounded(metrics.maximal_linkability(mated, other, bins=BINS)),
        "mated": int(mated.size),
    }


def _renewal(mated: Floats, other: Floats, limit: float, seed: int) -> Figures:
    pool, count = np.concatenate([mated.ravel(), other.ravel()]), mated.size
    random = np.random.default_rng(seed)
    shuffled = [random.permutation(pool) for _ in range(100)]
    null = [metrics.distribution_distance(one[:count], one[count:]) for one in shuffled]
    return {
        "distance": rounded(metrics.distribution_distance(mated, other)),
        "null": rounded(np.percentile(null, 95)),
        "matched": rounded((mated >= limit).mean()),
    }


def _inversion(scheme: Scheme, faces: Faces, victims: int, count: int, seed: int, limit: float) -> Figures:
    size = faces.templates.shape[-1]
    maps = [scheme.maps(size, secret(seed, "record", record)) for record in range(count)]
    codes = [scheme.encode(scheme.project(faces.templates[:victims, 0], one)) for one in maps]
    found = invert(scheme, codes, maps, faces.start)
    cosines = np.einsum("pd,pnd->pn", found, faces.templates[:victims])
    return {
        "records": count,
        "cosine": _by_person(cosines[:, 0], faces.subjects),
        "same": _by_person(cosines[:, 0] >= limit, faces.subjects),
        "other": _by_person(cosines[:, 1:] >= limit, faces.subjects),
    }


def _search(scheme: Scheme, seed: int) -> Figures:
    """Milliseconds of a search, of random codes: what is in them does not matter to the time."""
    if not isinstance(scheme, Binary):
        return {"search_ms": None, "search_codes": 0}
    random = np.random.default_rng(seed)
    codes = random.integers(0, 1 << 64, (SEARCHED, *scheme.code_form(0)[0]), np.uint64)
    index, took = CodeIndex(scheme, codes), []
    for place in range(5):
        began = time.process_time()
        index.best(codes[place])
        took.append(time.process_time() - began)
    return {"search_ms": rounded(1000 * np.median(took)), "search_codes": SEARCHED}
