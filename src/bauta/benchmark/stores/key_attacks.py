"""Attackers on the key of a row: what they recover of it, and what can be linked without it.

They have the software, the stolen store, and the system's own threshold. *Known pairs* also know some people's photos
and rows, *store alone* nothing further. What they recover is measured by what it opens: the victims' rows are turned
back with it, and compared with another photo of each. On sealed rows the same attackers read words of ciphertext.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bauta import metrics
from bauta.attacks.cards import Knowledge
from bauta.attacks.keys import Positions, Recovered, from_pairs, from_store, likeness_of_invariants, procrustes
from bauta.benchmark.engine.figures import mean_by_subject, plain, rounded
from bauta.benchmark.identification import closed_set
from bauta.benchmark.stores.attacks import Access, Outcome, attacker_card, build_options
from bauta.benchmark.stores.recipe import Attack
from bauta.benchmark.stores.representations import CHUNK, Faces, StolenStore, again, protect_faces
from bauta.errors import UsageError
from bauta.settings import Range, Settings
from bauta.templates.advface.keys import LARGEST_ROTATION, turn

Photo = Literal["same", "jpeg-85", "another"]
Record = dict[str, Any]
QUALITY = 85
SAID = {
    "same": "the enrolled photo",
    "jpeg-85": f"the enrolled photo as JPEG {QUALITY}",
    "another": "another photo of the person",
}


@dataclass(frozen=True)
class KeyAttackConfig(Settings):
    """What an attacker on a key knows, and how long he works.

    Attributes:
        photos: Which photos are known: the enrolled one as it is, compressed again, or another of the person.
        pairs: How many of them, for `known-pairs`.
        stolen: How many stolen rows `store-alone` reads.
        rounds: See `bauta.attacks.keys.from_store`.
        anchors: The same.
    """

    title: ClassVar[str] = "an attacker on a key"
    photos: tuple[Photo, ...] = get_args(Photo)
    pairs: Annotated[tuple[int, ...], Range(at=1)] = (1, 2, 10, 100)
    stolen: Annotated[int, Range(at=8)] = 1000
    rounds: Annotated[int, Range(at=0, to=1000)] = 6
    anchors: Annotated[int, Range(at=1, to=65_536)] = 1024

    def problems(self) -> Iterator[tuple[str, str]]:
        """Lists of nothing to try."""
        yield from ((name, "Name one at least.") for name in ("photos", "pairs") if not getattr(self, name))


@dataclass(frozen=True, eq=False)
class _Numbers:
    """What the key turns, and back: an attacker has the software, and does this with a key of his own."""

    access: Access
    store: StolenStore

    @cached_property
    def spread(self) -> tuple[Tensor, Tensor]:
        """(K,) mean and deviation of the attacker's own numbers."""
        own = self.stored(self.store.own)
        return own.mean(0), own.std(0).clamp_min(1e-6)

    @property
    def rotated(self) -> bool:
        """Whether rows are rotated, and not permuted."""
        template = self.access.protector.kind == "template" and not self.access.sealed
        return template and self.access.stolen[0].numel() <= LARGEST_ROTATION

    def stored(self, values: Tensor) -> Tensor:
        """(N, K) of rows (N, ...)."""
        return values.flatten(1).float()

    def plain(self, values: Tensor) -> Tensor:
        """(N, K) of the attacker's own rows (N, ...), before the key."""
        if self.access.own_key is None:  # sealed: nothing turns what lies in a record, and words are standardised
            return (self.stored(values) - self.spread[0]) / self.spread[1]
        kind = self.access.protector.kind == "template"
        return turn(values.float(), self.access.own_key, rotated=kind, back=True).flatten(1)

    def templates(self, plain: Tensor) -> Tensor:
        """(N, D) of numbers (N, K) before the key."""
        protector, found = self.access.protector, []
        if self.access.own_key is None:
            plain = plain * self.spread[1] + self.spread[0]
        for part in torch.split(plain, CHUNK):
            values = part.reshape(-1, *self.access.stolen.shape[1:])
            if self.access.own_key is not None:
                values = turn(values, self.access.own_key, rotated=protector.kind == "template")
            with torch.no_grad():
                found.append(protector.templates(again(protector, values, self.access.own_key), self.access.own_key))
        return torch.cat(found)

    def true(self) -> Positions | None:
        """The key's permutation; None where there is none to compare with."""
        if self.access.key is None or self.rotated:  # a seal has no positions
            return None
        count = self.access.stolen[0].numel()
        turned = turn(torch.arange(1.0, count + 1)[None], self.access.key, rotated=False)[0]
        return Positions(turned.abs().long() - 1, turned.sign())


def carry_out(attack: Attack, access: Access) -> Outcome:
    """Attack the key of a row, or what it leaves to be linked.

    Raises:
        UsageError: when the row has no key, or the options make no sense.
    """
    store = access.store
    if store is None:
        raise UsageError(
            f"{attack.name!r} attacks a key, and the row has none.",
            hint="Let the row be keyed or sealed, or leave it out.",
        )
    config = build_options(KeyAttackConfig, dict(attack.options), attack)
    numbers = _Numbers(access, store)
    if attack.kind == "invariants":
        card = attacker_card(attack, "mechanism", "Sorted magnitudes.")
        return Outcome(card, None, None, {}, linked=_links(attack, access, store, config))
    if attack.kind == "known-pairs":
        tries, knowledge, ours = _known(attack, access, store, config, numbers), "pairs", "Nearest positions."
    else:
        tries, knowledge, ours = _alone(attack, access, store, config, numbers), "mechanism", "Marks and rounds."
    keys = {
        "map": "sealed" if access.sealed else "rotation" if numbers.rotated else "permutation",
        "fmr": store.fmr,
        "gallery": len(store.true),
        "true_key": _opened(store, store.true),
        "tries": tries,
    }
    bare: Knowledge = "pairs" if knowledge == "pairs" else "mechanism"
    return Outcome(attacker_card(attack, bare, ours), None, None, {}, keys=keys)


def recompressed(faces: Faces, quality: int = QUALITY) -> Faces:
    """Faces after another round of JPEG."""
    found = []
    for one in faces.pixels.permute(0, 2, 3, 1).numpy():
        stream = io.BytesIO()
        Image.fromarray(one).save(stream, "JPEG", quality=quality)
        with Image.open(stream) as image:
            found.append(np.asarray(image.convert("RGB")))
    pixels = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()
    return Faces(f"{faces.name}, JPEG {quality}", f"{faces.sha256} {quality}", pixels, faces.subjects)


def _photos(access: Access, attack: Attack, photo: Photo, same: Faces, another: Faces) -> Tensor:
    """Rows that the attacker makes of photos he knows, under a key of his own."""
    faces = {"same": lambda: same, "jpeg-85": lambda: recompressed(same), "another": lambda: another}[photo]()
    made = protect_faces(
        access.protector,
        faces,
        access.work / "representations",
        seed=access.seed + 1,  # his randomness is not the deployment's
        key=access.own_key,
        progress=lambda done, total: access.progress(f"{attack.name}: {photo}", done, total),
    )
    assert made.values is not None
    return made.values


def _known(
    attack: Attack, access: Access, store: StolenStore, config: KeyAttackConfig, numbers: _Numbers
) -> list[Record]:
    asked = torch.arange(max(config.pairs))
    if len(asked) > len(store.known):
        raise UsageError(
            f"{attack.name!r} asks for {len(asked)} pairs; {len(store.known)} people of the first set are not victims.",
            hint="Ask for fewer, or use more pairs of the set.",
        )
    same, another = store.same.at(asked), store.another.at(asked)
    recover: Callable[[Tensor, Tensor], Recovered] = procrustes if numbers.rotated else from_pairs
    tries = []
    for photo in config.photos:
        plain = numbers.plain(_photos(access, attack, photo, same, another))
        for count in config.pairs:
            found = recover(plain[:count], numbers.stored(store.known[:count]))
            tries.append(_tried(f"{SAID[photo]}, {count}", found, access, store, numbers))
            access.progress(attack.name, len(tries), len(config.photos) * len(config.pairs))
    return tries


def _alone(
    attack: Attack, access: Access, store: StolenStore, config: KeyAttackConfig, numbers: _Numbers
) -> list[Record]:
    if numbers.rotated:
        raise UsageError(
            f"{attack.name!r} matches positions, and a rotation mixes them.", hint="Leave it out of this row."
        )
    stolen, own = numbers.stored(store.rows[: config.stolen]), numbers.plain(store.own)
    access.progress(attack.name, 0, 1)
    found = from_store(own, stolen, rounds=config.rounds, anchors=config.anchors)
    said = f"{len(stolen)} rows, {len(own)} faces of his own"
    return [_tried(said, found, access, store, numbers)]


def _tried(said: str, found: Recovered, access: Access, store: StolenStore, numbers: _Numbers) -> Record:
    true = numbers.true()
    right = None
    if true is not None and isinstance(found, Positions):
        right = rounded(found.right(true).mean())
    templates = numbers.templates(found.undo(numbers.stored(access.stolen)))
    return {"knows": said, "positions": right, **_opened(store, templates)}


def _opened(store: StolenStore, templates: Tensor) -> Record:
    """How many of the victims' rows match another photo of the victim, and how many find it first."""
    people = store.enrolled.subjects
    scores = (templates * store.probes).sum(1).numpy()
    ranks = closed_set(templates.numpy(), people, store.probes.numpy(), people)
    return {
        "tar": mean_by_subject(scores >= store.limit, people),
        "rank_1": plain(ranks.rates[1]),
    }


def _links(attack: Attack, access: Access, store: StolenStore, config: KeyAttackConfig) -> Record:
    """The victims' rows found by photos that the attacker protects himself, and whether somebody is in the store."""
    mated = torch.zeros(len(store.places), len(store.rows), dtype=torch.bool)
    mated[torch.arange(len(mated)), store.places] = True
    found: Record = {}
    for photo in config.photos:
        scores = likeness_of_invariants(_photos(access, attack, photo, store.enrolled, store.others), store.rows)
        outside = scores.masked_fill(mated, -torch.inf).amax(1)  # the same photos, had their rows not been stored
        found[photo] = {
            "auroc": rounded(metrics.auroc(scores[mated].numpy(), scores[~mated].numpy())),
            "rank_1": mean_by_subject((scores.argmax(1) == store.places).numpy(), store.enrolled.subjects),
            "gallery": len(store.rows),
            "member_auroc": rounded(metrics.auroc(scores.amax(1).numpy(), outside.numpy())),
        }
    return found
