"""Encrypted matching: attacks, each with its protection off, where it must succeed, and on, where it must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bauta.encrypted.budget import Budget
from bauta.encrypted.encoded import PlainGallery
from bauta.encrypted.kernel import accumulate, halved, joined
from bauta.encrypted.masking import draw, mask, random_errors, random_ternary
from bauta.encrypted.packing import Layout
from bauta.encrypted.parameters import DEGREE, MODULUS, PLAIN, PRIMES
from bauta.encrypted.quantisation import quantise, require_unit
from bauta.encrypted.transform import multiply, reduce, transforms
from bauta.errors import BautaError
from encrypted_parties import door_to, faces, keys, scores, sealed_probes, server_of

WORKS, FAILS = 0.85, 0.15
LAYOUT = Layout(512, 1)  # eight templates in a polynomial, and one ciphertext: the attacker's best case


def cosines(found: Any, templates: Any) -> float:
    """Mean absolute cosine of what was found with what is there."""
    found, there = (np.asarray(one, np.float64).reshape(len(templates), -1) for one in (found, templates))
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(there, axis=1)
    return float(np.abs((found * there).sum(1) / np.maximum(norms, 1e-9)).mean())


def products(sealed: Any, templates: Any) -> tuple[list[Any], list[Any]]:
    """The server's c0 and c1 before masking, for each prime."""
    first, second = [], []
    for place, each in enumerate(transforms()):
        stored = each.forward(LAYOUT.pack(templates)).astype(np.uint32)[:, None]
        sums = accumulate(stored, halved(sealed[place]), each.prime)
        first.append(sums[0])
        second.append(sums[1])
    return first, second


def textbook_mask(first: list[Any], second: list[Any], public: Any, step: int) -> tuple[Any, Any]:
    """Delta r on the plaintext, and an encryption of zero: what older texts do."""
    assert step == 1
    hidden, errors, more = random_ternary(1), random_errors(1), random_errors(1)
    share = np.random.default_rng().integers(0, PLAIN, (DEGREE, 1))
    lifted = (share.astype(object) * MODULUS + PLAIN // 2) // PLAIN
    sent, rest = [], []
    for place, each in enumerate(transforms()):
        one = each.forward(hidden)
        key, random = (half[place].astype(np.float64)[:, None] for half in public)
        body = each.inverse(reduce(multiply(one, key, each.prime) + each.forward(more) + first[place], each.prime))
        sent.append(reduce(body + (lifted % each.prime).astype(np.float64), each.prime).astype(np.uint32))
        tail = multiply(one, random, each.prime) + each.forward(errors) + second[place]
        rest.append(reduce(tail, each.prime).astype(np.uint32))
    return np.stack(sent), np.stack(rest)


def given(first: Any, second: Any) -> tuple[Any, Any]:
    """An answer as (primes, 4096, rows), which decryption takes."""
    return first.transpose(1, 2, 0), np.ascontiguousarray(second.transpose(1, 2, 0))


def noise(first: Any, second: Any) -> Any:
    """The noise of a ciphertext, by its owner: what is left of its phase once the message is taken out."""
    secret = keys()[0].secret
    phases = [
        reduce(each.inverse(multiply(second[place] * 1.0, secret._slots[place], each.prime)) + first[place], each.prime)
        for place, each in enumerate(transforms())
    ]
    whole = joined(np.stack(phases).astype(np.uint32)).astype(object)[:, 0]
    return np.array([((PLAIN * x + MODULUS // 2) % MODULUS - MODULUS // 2) / PLAIN for x in whole], np.float64)


def divided(by: Any, value: Any, ratio: float) -> Any:
    """value / by modulo X^4096 + 1, over the reals (Wiener's filter)."""
    twist = np.exp(1j * np.pi * np.arange(DEGREE) / DEGREE)
    below, above = np.fft.fft(by * twist), np.fft.fft(value * twist)
    return (np.fft.ifft(above * below.conj() / (np.abs(below) ** 2 + ratio)) / twist).real


def in_coefficients(slots: Any) -> Any:
    return np.stack([each.inverse(slots[place] * 1.0) for place, each in enumerate(transforms())]).astype(np.uint32)


@pytest.mark.parametrize("protected", [False, True])
def test_noise_attack(protected: bool) -> None:
    """The door knows the noise e of its own probe, and an answer's noise is e times the gallery."""
    templates = quantise(faces(LAYOUT.group))
    sealed = keys()[0].secret.encrypt(LAYOUT.probe(quantise(faces(1, seed=1))[0]))
    own = noise(in_coefficients(sealed[:, :, :, 0]), sealed[:, :, :, 1])
    assert 2 < own.std() < 5
    halves = keys()[1].public.halves
    if protected:
        first, second = given(*mask(*products(sealed, templates), draw(halves, 1, 1)))
    else:
        first, second = textbook_mask(*products(sealed, templates), halves, 1)
    found = LAYOUT.unpack(np.clip(divided(own, noise(first, second), 112), -3e4, 3e4)[:, None])
    assert cosines(found, templates) >= WORKS if not protected else cosines(found, templates) <= FAILS


@pytest.mark.parametrize("protection", ["none", "a = 0", "on"])
def test_c1_attack(protection: str) -> None:
    """The door sends a constant as c1 and reads the gallery out of the answer's c1."""
    templates, constant = quantise(faces(LAYOUT.group)), 1 << 15
    sealed = np.zeros((len(PRIMES), DEGREE, 1, 2), np.uint32)
    sealed[..., 1] = constant  # a constant has one value at every root
    first, second = products(sealed, templates)
    body, random = keys()[1].public.halves
    if protection == "none":
        answer = np.stack(second).astype(np.uint32)
    else:
        halves = (body, random * 0 if protection == "a = 0" else random)
        _, answer = given(*mask(first, second, draw(halves, 1, 1)))
    whole = joined(in_coefficients(answer))
    whole[whole > MODULUS // 2] -= MODULUS
    found = LAYOUT.unpack(np.clip(np.rint(whole / constant), -3e4, 3e4))
    assert cosines(found, templates) <= FAILS if protection == "on" else cosines(found, templates) >= WORKS


@pytest.mark.parametrize("api", ["scores", "shares"])
def test_linear_solve(api: str) -> None:
    """As many probes as dimensions, and a least squares: a score is a linear equation, a share is not."""
    gallery = PlainGallery(Layout(128, 1))
    templates, probes = quantise(faces(8, 128)), quantise(faces(140, 128, seed=1))
    gallery.add(templates)
    answers = list(gallery.answer(sealed_probes(gallery, probes), keys()[1].public))
    known = scores(answers, gallery.layout.width, 8)
    if api == "shares":  # what the door really has
        known = (known + answers[0].share[:, :8].astype(np.int64) + PLAIN // 2) % PLAIN - PLAIN // 2
    found = np.linalg.lstsq(probes.astype(np.float64), known.astype(np.float64), rcond=None)[0].T
    assert cosines(found, templates) >= WORKS if api == "scores" else cosines(found, templates) <= FAILS


def test_the_same_probe_twice_shows_nothing_new() -> None:
    gallery = PlainGallery(LAYOUT)
    gallery.add(quantise(faces(8)))
    sealed = sealed_probes(gallery, quantise(faces(1, seed=1)))
    one, other = (next(gallery.answer(sealed, keys()[1].public)) for _ in range(2))
    differences = [
        (a.astype(np.int64) - b) % PRIMES[0] for a, b in ((one.first, other.first), (one.second, other.second))
    ]
    assert abs(differences[1].mean() / PRIMES[0] - 0.5) < 0.02
    assert not (one.share == other.share).all()
    step = gallery.layout.width
    for answer in (one, other):
        first, second = (part[0].transpose(1, 2, 0) for part in (answer.first, answer.second))
        door = keys()[0].secret.decrypt(first, second, step).T.reshape(-1)
        assert len(set(door.tolist())) == 8  # uniform shares, not scores


# Hill climbing: one bit an answer. The decision is that of the protocol, which other tests show to be exact.


class Oracle:
    """What a door may ask, with or without a limit and a check of norms."""

    def __init__(self, template: Any, *, norms: bool, decisions: int | None) -> None:
        self.template, self.norms = template, norms
        self.budget = None if decisions is None else Budget(decisions=decisions)

    def __call__(self, probe: Any) -> bool:
        whole = np.rint(np.asarray(probe) * 512)
        if self.norms:
            require_unit(whole[None].astype(np.int32))
        if self.budget:
            self.budget.spend(b"door", 1)
        return bool(whole @ self.template >= 0.4 * 512**2)


def least(matches: Callable[[float], bool], low: float, high: float, steps: int = 12) -> float:
    """Where a decision changes from no, at `low`, to yes, at `high`."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if matches(middle) else (middle, high)
    return high


def climb_by_length(oracle: Oracle) -> Any:
    """Long probes along each axis: the length at which one matches is the threshold over the coordinate."""
    found = np.zeros(512)
    try:
        for axis in range(512):
            unit = np.eye(512)[axis]
            for sign in (1, -1):
                if oracle(unit * sign * 64):
                    found[axis] = sign * 0.4 / least(lambda length, u=unit * sign: oracle(u * length), 0.0, 64.0)
    except BautaError:
        return found
    return found


def climb_along_the_edge(oracle: Oracle, start: Any) -> Any:
    """From a photo that matches, turn towards each axis until it does not: each angle is a linear equation."""
    rows: list[Any] = []
    try:
        for axis in range(512):
            away = np.eye(512)[axis] - start * start[axis]
            away /= np.linalg.norm(away)

            def turned(angle: float, away: Any = away) -> Any:
                return start * np.cos(angle) + away * np.sin(angle)

            angle = least(lambda one: not oracle(turned(one)), 0.0, np.pi, 18)
            rows.append(turned(angle))
    except BautaError:
        pass
    return np.linalg.lstsq(np.array(rows), np.full(len(rows), 0.4), rcond=None)[0] if rows else np.zeros(512)


def test_hill_climbing_with_long_probes() -> None:
    template = quantise(faces(1))[0]
    assert cosines(climb_by_length(Oracle(template, norms=False, decisions=None)), template[None]) >= WORKS
    assert cosines(climb_by_length(Oracle(template, norms=True, decisions=None)), template[None]) <= FAILS
    assert cosines(climb_by_length(Oracle(template, norms=False, decisions=100)), template[None]) <= FAILS


def test_hill_climbing_from_a_photo_that_matches_is_stopped_by_the_limit_alone() -> None:
    template = quantise(faces(1))[0]
    start = 0.5 * faces(1)[0] + np.sqrt(0.75) * faces(1, seed=9)[0]
    start /= np.linalg.norm(start)
    unlimited = climb_along_the_edge(Oracle(template, norms=True, decisions=None), start)
    assert cosines(unlimited, template[None]) >= WORKS
    gained = climb_along_the_edge(Oracle(template, norms=True, decisions=100), start)
    rest = gained - start * (gained @ start)  # what was not known before
    assert cosines(rest, template[None]) <= FAILS


def test_how_much_a_budget_gives_away_to_long_random_probes() -> None:
    """The strongest way we know without a check of norms: each bit is a half-space. 16 are little, 1000 most of it."""
    template, random = quantise(faces(1))[0], np.random.default_rng(3)
    gained = {}
    for decisions in (16, 1000):
        oracle = Oracle(template, norms=False, decisions=decisions)
        probes = random.standard_normal((decisions, 512)) * 100
        gained[decisions] = cosines(sum(one * (1 if oracle(one) else -1) for one in probes), template[None])
    assert gained[16] <= 0.25
    assert gained[1000] >= 0.6


def test_a_server_refuses_decisions_beyond_the_budget_and_a_cloud_long_probes() -> None:
    gallery = PlainGallery(Layout(128, 1))
    gallery.add(quantise(faces(5, 128)))
    probe = faces(5, 128)[:1]
    with door_to(server_of(gallery, budget=Budget(decisions=2))) as door:
        assert [door.ask(probe)[0].found for _ in range(2)] == [True, True]
        with pytest.raises(BautaError, match="2 decisions in 3600 seconds"):
            door.ask(probe)
