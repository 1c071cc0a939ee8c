"""The attackers of a template recipe at work: each learns from its own people, then recovers or links the victims."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bauta.attacks.cards import AttackerCard, Knowledge
from bauta.attacks.generative import GenerativeConfig, fit_generative
from bauta.attacks.link import StudentConfig, device_of, fit_student, load_student, start_from
from bauta.attacks.optimise import OptimisationConfig, search
from bauta.attacks.oracle import OraclePairs, StoredPairs
from bauta.attacks.reconstruct import Pairs, ReconstructionConfig, fit_reconstructor
from bauta.benchmark.stores.recipe import Attack
from bauta.benchmark.stores.representations import (
    CHUNK,
    Faces,
    Protected,
    StolenStore,
    again,
    attack_code,
    hash_seed,
    protect_faces,
    protection_code,
    read_tensors,
    write_tensors,
)
from bauta.errors import UsageError
from bauta.files import make_folder
from bauta.learning.fitting import Inputs
from bauta.learning.learners import Schedule
from bauta.progress import Progress
from bauta.templates.base import Protector
from bauta.templates.references import IdentityFeature
from bauta.templates.representation import key_fingerprint

EXAMPLES = 64  # inputs by which a student standardises
OF_PAIRS = ("images", "fresh", "draws", "shared", "reads")  # options of what a decoder learns from
READS = ("numbers", "pictures", "templates")
PAPERS = {
    "picture": "our design",
    "decoder": "Ronneberger et al. 2015; Mai et al. 2018",
    "generative": "Isola et al. 2017",
    "search": "Mahendran and Vedaldi 2015; Athalye et al. 2018",
    "student": "FaceLinkGen, 2026",
    "kernel": "Saunders, Gammerman and Vovk 1998",
    "kernel-student": "Saunders, Gammerman and Vovk 1998; FaceLinkGen, 2026",
    "known-pairs": "our design; Schönemann 1966",
    "store-alone": "our design",
    "invariants": "our design",
}


class Linking(Protocol):
    """Says of stored numbers what the recogniser says of the face."""

    def embed(self, inputs: Inputs) -> Tensor:
        """Unit-norm embeddings (N, D)."""


@dataclass(frozen=True, eq=False)
class Access:
    """What attackers of a row have access to.

    Attributes:
        protector: Under attack.
        people: The attacker's own faces.
        asked: Those of them that were protected.
        protected: What became of these.
        stolen: The stored values of the victims, (V, ...).
        key: Of the deployment; only `search`, and who looks at pictures, uses it.
        own_key: The attacker's own, of `protected`.
        work: Folder of checkpoints.
        seed: Of everything random.
        progress: Called with what is done, how far it is, and how far it goes.
        victims: (V, 3, 112, 112) in [0, 1], the faces themselves: no attacker looks at them, but some are given what
            other randomness would have left of them.
        sealed: Whether `protected` and `stolen` are words of ciphertext.
        store: What key attackers have access to, where there is a key.
    """

    protector: Protector
    people: Faces
    asked: Faces
    protected: Protected
    stolen: Tensor
    key: bytes | None
    own_key: bytes | None
    work: Path
    seed: int
    progress: Progress
    victims: Tensor | None = None
    sealed: bool = False
    store: StolenStore | None = None

    @property
    def about(self) -> list[str]:
        """What made the attacker's own representations, for checkpoints."""
        made = [self.protector.sha256, key_fingerprint(self.own_key)]
        return [*made, "sealed"] if self.sealed else made

    @cached_property
    def unprotected(self) -> Protector:
        """The same recogniser without protection, cut at the same place.

        Raises:
            UsageError: when the stored numbers are not of its network.
        """
        front = getattr(self.protector, "front", None)
        if self.protector.kind not in ("feature", "template") or front is None:
            raise UsageError(
                f"{self.protector.name} stores what no unprotected service stores.",
                hint="Let its decoders be adaptive.",
            )
        return IdentityFeature(self.protector.recognizer, split=front.cut.name)

    def learned(self, attack: Attack) -> tuple[Faces, Tensor]:
        """The faces that an attacker learns from, and which of them."""
        faces = self.people if attack.kind in ("decoder", "generative") and not attack.adaptive else self.asked
        generator = torch.Generator().manual_seed(hash_seed(self.seed, "faces"))
        chosen = torch.randperm(len(faces), generator=generator)[: attack.options.get("images", len(faces))]
        return faces, chosen.sort().values

    def pairs(self, attack: Attack) -> Pairs:
        """Unprotected features, or protected representations, and the attacker's images."""
        faces, index = self.learned(attack)
        every = len(index) == len(faces)  # features are large: no copy of all of them
        pixels = faces.pixels if every else faces.pixels[index]
        if not attack.adaptive:
            made = protect_faces(
                self.unprotected,
                faces,
                self.work / "representations",
                seed=self.seed,
                progress=lambda done, total: self.progress("unprotected features", done, total),
            )
            assert made.values is not None
            values = made.values if every else made.values[index]
            return StoredPairs(values.to(self.protector.device), pixels, key=self.unprotected.sha256)
        viewer = self.viewer(attack)
        if attack.options.get("fresh", False):
            if _reads(attack) != "numbers":
                raise UsageError(f"{attack.name!r} can be fresh with numbers only.", hint="Choose one of them.")
            return OraclePairs(
                self.protector, pixels, keys=lambda generator: self.own_key, about=key_fingerprint(self.own_key)
            )
        assert self.protected.values is not None
        key = " ".join(self.about)
        if attack.options.get("shared", False) or attack.options.get("draws", 1) > 1:
            values = self.drawn_otherwise(faces.images(index), attack, self.own_key, "attacker")
            key = f"{key} {_randomness(attack)}"
        else:
            values = self.protected.values if every else self.protected.values[index]
        if viewer is not None:
            values, key = _viewed(values, viewer), f"{key} pictures"
        return StoredPairs(values.to(self.protector.device), pixels, key=key)

    def viewer(self, attack: Attack) -> nn.Module | None:
        """What an attacker looks at stored numbers with: the protector's viewer, if he asks for it and there is one."""
        return self.protector.viewer if _reads(attack) == "pictures" else None

    def read(self, attack: Attack, stolen: Tensor) -> Tensor:
        """Stolen values (n, ...) as a decoder reads them: as they are, as pictures, or as templates."""
        if self.victims is not None and (attack.options.get("shared", False) or attack.options.get("draws", 1) > 1):
            stolen = self.drawn_otherwise(self.victims[: attack.victims], attack, self.key, "victims")
        viewer = self.viewer(attack)
        if viewer is not None:
            stolen = _viewed(stolen, viewer)
        if _reads(attack) == "templates":
            stolen = self.protector.templates(again(self.protector, stolen, self.key), self.key)
        return stolen

    def templates(self, attack: Attack) -> Pairs:
        """Templates that the protector's own recogniser makes of the attacker's faces: nobody has to protect them."""
        faces, index = self.learned(attack)
        facts = [protection_code(), self.protector.sha256, faces.sha256, self.seed]
        path = self.work / "representations" / f"probes-{hash_seed(*facts):x}.safetensors"
        kept = read_tensors(path)
        if kept is None:
            generator, parts = torch.Generator().manual_seed(hash_seed(self.seed, "probes")), []
            with torch.no_grad():
                for part in torch.split(torch.arange(len(faces)), CHUNK):
                    parts.append(self.protector.probe(faces.images(part), generator))
                    self.progress(f"{attack.name}: templates", int(part[-1]) + 1, len(faces))
            kept = {"values": torch.cat(parts)}
            write_tensors(path, kept)
        key = f"{self.protector.sha256} templates"
        return StoredPairs(kept["values"][index], faces.pixels[index], key=key)

    def drawn_otherwise(self, images: Tensor, attack: Attack, key: bytes | None, whose: str) -> Tensor:
        """(n, ...) float32: means of several protections of each face, or one with the randomness that all faces share.

        They are computed once and kept.
        """
        shared, draws = attack.options.get("shared", False), attack.options.get("draws", 1)
        digest = hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()
        facts = [
            protection_code(),
            self.protector.sha256,
            key_fingerprint(key),
            shared,
            draws,
            self.seed,
            whose,
            digest,
        ]
        path = self.work / "representations" / f"drawn-{hash_seed(*facts):x}.safetensors"
        kept = read_tensors(path)
        if kept is None:
            parts = []
            for place, part in enumerate(torch.split(images, 1 if shared else CHUNK)):
                seed = hash_seed(self.seed, "shared") if shared else hash_seed(self.seed, whose, place)
                generator = torch.Generator().manual_seed(seed)
                drawn = [self.protector.protect(part, generator, key).values() for _ in range(draws)]
                parts.append(torch.stack(drawn).mean(0))
                self.progress(f"{attack.name}: protections", sum(map(len, parts)), len(images))
            kept = {"values": torch.cat(parts).contiguous()}
            write_tensors(path, kept)
        return kept["values"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an attacker achieved.

    Attributes:
        card: Who it was.
        images: (V, 3, 112, 112) recovered faces, or None.
        student: What links, or None.
        fitted: Losses and time of the training.
        keys: What was recovered of a key, as cards have it, or None.
        linked: What is linked whatever the key, as cards have it, or None.
    """

    card: AttackerCard
    images: Tensor | None
    student: Linking | None
    fitted: Mapping[str, Any]
    keys: Mapping[str, Any] | None = None
    linked: Mapping[str, Any] | None = None


def carry_out(attack: Attack, access: Access) -> Outcome:
    """Fit an attacker who looks, searches or trains a network, and let it loose on the victims.

    Raises:
        UsageError: when its options make no sense, or it needs what a seal has taken.
        NumericalFailure: when a loss is not a number.
    """
    stolen = access.stolen[: attack.victims]
    if access.sealed and (attack.kind == "search" or set(attack.options) & {"fresh", "draws", "shared", "reads"}):
        raise UsageError(
            f"{attack.name!r} needs more of a store than the ciphertext of a sealed one.",
            hint="Name the row's attackers; the row without a seal is the one whose key was stolen.",
        )
    if attack.kind == "picture":
        with torch.no_grad():
            images = access.protector.to_image(again(access.protector, stolen, access.key), access.key)
        bare: Knowledge = "nothing" if access.protector.viewer is None else "mechanism"
        knowledge = bare if access.key is None else "key"
        return Outcome(
            attacker_card(attack, knowledge, "The stored numbers, looked at as a picture."), images, None, {}
        )
    if attack.kind == "search":
        return _search(attack, access, stolen)
    if attack.kind == "student":
        return _student(attack, access)
    return _decoder(attack, access, stolen)


def _decoder(attack: Attack, access: Access, stolen: Tensor) -> Outcome:
    options = {key: value for key, value in attack.options.items() if key not in OF_PAIRS}
    schedule = _take(Schedule, options, {"seed": access.seed})
    critic: dict[str, Any] = {key: options.pop(key) for key in ("adversarial", "critic_channels") if key in options}
    start = {"identity": 0.1} if attack.kind == "generative" else {}
    config = build_options(ReconstructionConfig, start | options | {"schedule": schedule}, attack)
    randomness, reads, viewer = _randomness(attack), _reads(attack), access.viewer(attack)
    pairs = access.templates(attack) if reads == "templates" else access.pairs(attack)
    stolen = access.read(attack, stolen)
    if tuple(pairs.shape) != tuple(stolen.shape[1:]):
        raise UsageError(
            f"{attack.name!r} learned from {list(pairs.shape)}; {list(stolen.shape[1:])} is stored.",
            hint="Let it be adaptive.",
        )
    whole = (
        config if attack.kind == "decoder" else build_options(GenerativeConfig, {"decoder": config, **critic}, attack)
    )
    facts = [attack_code(), pairs.key, whole.to_dict()]
    about = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    knows = bool(attack.options.get("fresh", False))  # who protects anew in every step has the protector itself
    folder, embed = access.work / "attackers", access.protector.probe if knows else access.protector.clean
    fit = fit_reconstructor if attack.kind == "decoder" else fit_generative
    fitted = fit(
        pairs, whole, embed=embed, device=access.protector.device, work=folder, name=about,
        progress=_named(access.progress, attack.name),
    )  # fmt: skip
    inside = knows or viewer is not None or reads == "templates"
    knowledge: Knowledge = "mechanism" if inside else "pairs" if attack.adaptive else "nothing"
    if reads == "templates" and access.key is not None:
        knowledge = "key"
    what = "Reads the templates that the protector's own reader finds." if reads == "templates" else _reading(viewer)
    ours = " ".join(filter(None, ("Network, sizes and schedule.", randomness, what)))
    card = attacker_card(attack, knowledge, ours, access, schedule)
    return Outcome(card, fitted.reconstruct(stolen.float()), None, fitted.fitted)


def _randomness(attack: Attack) -> str:
    """What is particular about the randomness that a decoder meets, in a sentence; "" when nothing is.

    Raises:
        UsageError: when the options contradict each other.
    """
    fresh, shared, draws = (
        attack.options.get(name, start) for name, start in (("fresh", 0), ("shared", 0), ("draws", 1))
    )
    if not isinstance(draws, int) or not 1 <= draws <= 1000:
        raise UsageError(f"{attack.name!r} cannot see draws={draws!r} of each face.", hint="From 1 to 1000.")
    if fresh + shared + (draws > 1) > 1 or (not attack.adaptive and (fresh or shared or draws > 1)):
        raise UsageError(
            f"{attack.name!r} has options of randomness that do not go together.",
            hint="Choose one of fresh, shared and draws, for an adaptive decoder.",
        )
    if shared:
        return "Hypothetical: every face met the same randomness, the attacker's and the victims'."
    if draws > 1:
        return f"Sees the mean of {draws} protections of each photo, of the victims' too."
    return "The attacker's faces are protected anew in every epoch." if fresh else ""


def _reads(attack: Attack) -> str:
    """What a decoder or a student reads: the stored numbers, the pictures or the templates behind them.

    Raises:
        UsageError: when it is something else, or options contradict each other.
    """
    reads = attack.options.get("reads", "numbers")
    if reads not in READS or (attack.kind == "student" and reads == "templates"):
        raise UsageError(f"{attack.name!r} cannot read {reads!r}.", hint=f"It may be one of {', '.join(READS)}.")
    if reads == "templates" and attack.adaptive:
        raise UsageError(
            f"{attack.name!r} makes templates himself and has nothing protected.", hint="Set adaptive to false."
        )
    return str(reads)


def _viewed(values: Tensor, viewer: nn.Module) -> Tensor:
    """Stored values (n, ...) as the viewer shows them, (n, 3, 112, 112) float32."""
    where = device_of(viewer)
    with torch.no_grad():
        return torch.cat([viewer(part.float().to(where)).cpu() for part in torch.split(values, CHUNK)])


def _reading(viewer: nn.Module | None) -> str:
    return "" if viewer is None else "Reads the pictures that the protector's own stem makes."


def _student(attack: Attack, access: Access) -> Outcome:
    faces, index = access.learned(attack)
    options = {key: value for key, value in attack.options.items() if key not in ("images", "reads")}
    config = build_options(StudentConfig, options, attack)
    assert access.protected.values is not None
    values = access.protected.values
    inputs = values if len(index) == len(faces) else values[index]
    protector = access.protector
    with torch.no_grad():
        parts = [protector.clean(faces.images(part)) for part in torch.split(index, 32)]
    targets = torch.cat(parts)
    about = [attack_code(), *access.about]
    viewer = access.viewer(attack)
    facts = [*about, faces.sha256, config.to_dict(), access.seed, len(index), viewer is not None]
    path = access.work / "attackers" / f"student-{hash_seed(*facts):x}.safetensors"
    generator = torch.Generator().manual_seed(hash_seed(access.seed, "student"))
    if viewer is not None:  # a picture is what the teacher reads: there is nothing to put before it
        start: nn.Module = nn.Sequential(viewer, protector.recognizer)
    else:
        some = inputs[:: max(1, len(inputs) // EXAMPLES)][:EXAMPLES]
        start = start_from(protector.recognizer, inputs.shape[1:], generator, some)
    if path.exists():
        student = load_student(path, start, protector.device)
    else:
        student = fit_student(
            inputs, targets, start, config, generator, lambda done, total: access.progress(attack.name, done, total),
            device=protector.device,
        )  # fmt: skip
        make_folder(path.parent)
        student.save(path)
    schedule = Schedule(config.epochs, max(config.batch, 2), config.rate, access.seed)
    ours = f"AdamW, sizes and schedule. {_reading(viewer)}".strip()
    knowledge: Knowledge = "pairs" if viewer is None else "mechanism"
    card = attacker_card(attack, knowledge, ours, access, schedule, student.fit.stopped)
    return Outcome(card, None, student, {"cosine": round(1 - student.fit.losses[-1], 6)})


def _search(attack: Attack, access: Access, stolen: Tensor) -> Outcome:
    config = build_options(OptimisationConfig, dict(attack.options), attack)
    facts = [attack_code(), access.protector.sha256, access.people.sha256, config.to_dict(), access.seed, len(stolen)]
    facts.append(hashlib.sha256(stolen.contiguous().numpy().tobytes()).hexdigest())
    path = access.work / "attackers" / f"search-{hash_seed(*facts):x}.safetensors"
    kept = read_tensors(path)
    if kept is None:
        images, distances = [], []
        for place, part in enumerate(torch.split(stolen, 16)):
            generator = torch.Generator().manual_seed(hash_seed(access.seed, "search", place))
            found = search(
                access.protector,
                again(access.protector, part, access.key),
                config,
                access.people.mean_face,
                generator,
                key=access.key,
            )
            images.append(found.images)
            distances.append(found.distance)
            access.progress(attack.name, min(16 * (place + 1), len(stolen)), len(stolen))
        kept = {"images": torch.cat(images), "distance": torch.cat(distances)}
        write_tensors(path, kept)
    knowledge: Knowledge = "mechanism" if access.key is None else "key"
    card = attacker_card(attack, knowledge, "Parametrisation, starts and weights.")
    return Outcome(card, kept["images"], None, {"distance": round(float(kept["distance"].mean()), 6)})


def attacker_card(
    attack: Attack,
    knowledge: Knowledge,
    ours: str,
    access: Access | None = None,
    schedule: Schedule | None = None,
    stopped: str = "epochs",
) -> AttackerCard:
    """The card of an attacker; who trained, or solved, says on which of his faces."""
    trained: dict[str, Any] = {}
    if access is not None:
        faces, index = access.learned(attack)
        trained = {
            "data": faces.name,
            "data_sha256": faces.sha256,
            "people": len({faces.subjects[place] for place in index.tolist()}),
            "images": len(index),
            "seed": access.seed,
            "stopped": stopped,
        }
    if schedule is not None:
        trained |= {"epochs": schedule.epochs, "rate": schedule.rate, "batch": schedule.batch}
    adaptive = attack.adaptive or attack.kind not in ("picture", "decoder", "generative")
    return AttackerCard(attack.name, knowledge, adaptive, PAPERS[attack.kind], ours, **trained)


def _take(kind: type[Schedule], options: dict[str, Any], start: Mapping[str, Any]) -> Schedule:
    names = {one.name for one in fields(kind)}
    return kind(**dict(start), **{key: options.pop(key) for key in list(options) if key in names - set(start)})


def build_options(kind: Any, options: Mapping[str, Any], attack: Attack) -> Any:
    """The settings of an attacker.

    Raises:
        UsageError: when it has no such option, or one is of the wrong type.
    """
    names = [one.name for one in fields(kind)]
    for key in options:
        if key not in names:
            raise UsageError(
                f"The attacker {attack.name!r} has no option {key!r}.", hint=f"It has: {', '.join(names)}."
            )
    try:
        return kind(**{key: tuple(one) if isinstance(one, list) else one for key, one in options.items()})
    except TypeError as error:
        raise UsageError(f"The attacker {attack.name!r} has an option of the wrong type: {error}.") from error


def _named(progress: Progress, name: str) -> Progress:
    return lambda _, done, total: progress(name, done, total)
