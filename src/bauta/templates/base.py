"""The interface of recognition-side methods, and the form in which their learned parts are kept.

A fitted protector is a folder::

    card.toml            what it is: method, recogniser, settings, data, licence, seed, SHA-256 of the parts
    parts.safetensors    what it learned; missing when it learned nothing
"""

from __future__ import annotations

import hashlib
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bauta.calls import checked
from bauta.errors import UsageError, WeightsCorrupt, WeightsMissing
from bauta.faces.crops import retemplate
from bauta.files import PathLike, make_folder, write_atomically
from bauta.learning.fitted import Provenance, digest, read_content, read_parts, write_parts
from bauta.privacy.mechanisms import Spent
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.registry import MethodCard, load_method
from bauta.settings import Settings
from bauta.tables import shown
from bauta.templates.fit import FitWork
from bauta.templates.loading import SCHEMA, read_card, require_finite, require_parts
from bauta.templates.representation import SHORTEST_KEY, Kind, Representation, Storage, check_value

SIDE = 112
CARD_FILE = "card.toml"
PARTS_FILE = "parts.safetensors"
WORDS = 624  # of the state of a Mersenne twister
SHIPPED = Path(__file__).parent / "shipped"
"""Fitted protectors that travel with Bauta, a folder each."""


class Protector(ABC):
    """What stands between a recogniser and its store: faces go in, a `Representation` comes out, and it is matched.

    All images are aligned to `ARCFACE_112`: (N, 3, 112, 112) float32 RGB in [0, 1]; `crops` carries them to the
    recogniser's own template. Scores are cosines of the recogniser's final templates.

    Attributes:
        recognizer: The recogniser, which no protector changes.
        kind: What one row of its representations is.
        storage: Type of the numbers it stores.
        row_shape: Shape of what it stores of one face, or None where that is not known beforehand.
        keyed: Whether `protect` takes a key, as a broken reference; see `bauta.templates.advface.keys`.
        provenance: Where the learned parts come from.
        teachers: Names of further recognisers that the learned parts were fitted against; they cannot judge it.
        Config: Class of the settings that say what the protector is; they are kept with it.
        Training: Class of the settings that say how it learns.
        learns: Whether it learns from the faces that it is fitted on.
        accelerated: Whether it can learn on another device than the CPU.
    """

    card: ClassVar[MethodCard]
    Config: ClassVar[type[Settings]] = Settings
    Training: ClassVar[type[Settings]] = Settings
    learns: ClassVar[bool] = False
    accelerated: ClassVar[bool] = False
    kind: Kind
    storage: Storage = "float32"
    row_shape: tuple[int, ...] | None = None
    keyed: ClassVar[bool] = False
    teachers: tuple[str, ...] = ()

    def __init__(self, recognizer: Surrogate, *, provenance: Provenance | None = None) -> None:
        self.recognizer = recognizer
        self.provenance = provenance or Provenance()

    @classmethod
    @abstractmethod
    def fit(cls, images: Tensor, config: Any, training: Any, work: FitWork) -> Self:
        """A protector for the recogniser; interrupted, the same call goes on where the checkpoints are.

        Args:
            images: (N, 3, 112, 112) uint8, or float32 in [0, 1]: faces of people who will never be stored, and whom
                no attacker of an evaluation learns from.
            config: Of `Config`.
            training: Of `Training`.
            work: What it is fitted with.

        Raises:
            UsageError: when images have another form, are too few or of one person, or checkpoints are of other faces
                or settings.
            RecognizerError: when a recogniser cannot be used.
            NumericalFailure: when a loss is not a number; the checkpoint keeps the last good state.
        """

    @classmethod
    def fit_with(cls, images: Tensor, options: Mapping[str, object], work: FitWork) -> Self:
        """`fit` with settings by name, as recipes and the command line have them.

        Args:
            images: See `fit`.
            options: Fields of `Config` and `Training` that differ from the defaults; ``preset`` names a preset of
                `Config` to start from.
            work: See `fit`.

        Raises:
            UsageError: when there is no such preset or setting, a value is not allowed, or as `fit`.
        """
        given = dict(options)
        preset = str(given.pop("preset", "default"))
        config, training = ([one.name for one in kind.options()] for kind in (cls.Config, cls.Training))
        if unknown := sorted(given.keys() - {*config, *training}):
            raise UsageError(
                f"{cls.card.name} has no setting {', '.join(unknown)}.",
                hint=f"It has: {', '.join([*config, *training]) or 'none'}.",
            )
        return cls.fit(
            images,
            cls.Config.of({name: value for name, value in given.items() if name in config}, preset),
            cls.Training.of({name: value for name, value in given.items() if name in training}),
            work,
        )

    @abstractmethod
    def protect(self, images: Tensor, generator: torch.Generator, key: bytes | None = None) -> Representation:
        """What to store of the faces (N, 3, 112, 112) in [0, 1]; random where the method is.

        Stored it is sealed, by `bauta.gallery`. The `key` here is that of a reference which the benchmark shows broken.

        Raises:
            UsageError: when shapes or ranges are wrong, or the method takes no key.
        """

    def protect_anew(self, images: Tensor, key: bytes | None = None) -> Representation:
        """`protect` with randomness that nobody keeps and nobody can try out: see `unknown_generator`.

        Raises:
            UsageError: as `protect`.
        """
        return self.protect(images, unknown_generator(), key)

    @abstractmethod
    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """(N, D) unit-norm templates: what the matcher compares.

        Raises:
            UsageError: when the representation is another protector's, or was made with another key.
        """

    @abstractmethod
    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """(N, 3, 112, 112) in [0, 1]: what one sees who looks at the numbers as pictures, without training anything."""

    @property
    def viewer(self) -> nn.Module | None:
        """A network from stored numbers (N, ...) to the pictures (N, 3, 112, 112) behind them, which nobody has to
        train, since the protector comes with it; None where there is none."""
        return None

    @property
    def spent(self) -> Spent | None:
        """What each stored face spends of a budget of differential privacy; None where the method promises none."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the networks are. Faces, representations and templates are handed over on the CPU all the same."""
        return self.recognizer.mean.device

    def to(self, device: torch.device | str) -> Self:
        """Move the networks, in place; files, digests and what is stored do not depend on where they are."""
        self.recognizer.to(device)
        return self

    def clean(self, images: Tensor) -> Tensor:
        """(N, D) unit-norm templates of unprotected faces, on the images' device: the probes of one-sided matching."""
        self.require_images(images)
        embeddings: Tensor = self.recognizer(self.crops(images.to(self.device)))
        return embeddings.to(images.device)

    def probe(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(N, D) unit-norm templates of faces that are only compared, as the matcher makes them: `clean`, unless the
        recogniser reads masked faces alone.

        Args:
            images: (N, 3, 112, 112) in [0, 1].
            generator: Of what is random in masking them; one that nobody knows by default.
        """
        return self.clean(images)

    @property
    def thresholds(self) -> dict[float, float] | None:
        """Cosines from which on a probe matches, by false match rate, as far as known, where templates are those of
        another network than `recognizer`; None where they are its own, and its thresholds hold."""
        return None

    def match(self, gallery: Representation, probe: Representation, key: bytes | None = None) -> Tensor:
        """(N, M) cosines of the final templates of N gallery faces and M probes.

        Raises:
            UsageError: when either is another protector's, or was made with another key.
        """
        gallery.require_same_maker(probe)
        return self.templates(gallery, key) @ self.templates(probe, key).T

    def match_clean(
        self,
        gallery: Representation,
        probes: Tensor,
        key: bytes | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """(N, M) cosines of N protected faces and M probes (see `probe`): one-sided matching, the deployment.

        Args:
            gallery: What is stored.
            probes: (M, 3, 112, 112) in [0, 1], the faces in front of the camera.
            key: Of the gallery.
            generator: Of the probes' randomness; see `probe`.

        Raises:
            UsageError: when the gallery is another protector's, or was made with another key.
        """
        return self.templates(gallery, key) @ self.probe(probes, generator).T

    def crops(self, images: Tensor) -> Tensor:
        """ArcFace crops (N, 3, 112, 112) carried to the recogniser's template, differentiably."""
        return retemplate(images, self.recognizer.card.template)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Plain values from which, with `parts`, the protector can be made again."""

    def parts(self) -> dict[str, Tensor]:
        """What was learned, by name."""
        return {}

    @classmethod
    @abstractmethod
    def restore(
        cls, recognizer: Surrogate, settings: Mapping[str, Any], parts: Mapping[str, Tensor], provenance: Provenance
    ) -> Self:
        """The protector that had these settings and parts.

        Raises:
            UsageError: when settings are not allowed.
            WeightsCorrupt: when parts are missing or have other shapes.
        """

    @property
    def name(self) -> str:
        """The registered name of the method."""
        return self.card.name

    @cached_property
    def sha256(self) -> str:
        """Digest of method, recogniser, settings and learned parts: who changes one makes another protector."""
        about = [self.name, self.recognizer.card.sha256, self.settings()]
        return digest(about, self.parts())

    def represent(self, tensor: Tensor, key: bytes | None = None) -> Representation:
        """The float32 tensor (N, ...) as this protector's representation."""
        card = self.recognizer.card
        return Representation(
            tensor=tensor.detach().cpu(),
            kind=self.kind,
            recognizer=card.name,
            recognizer_sha256=card.sha256,
            protector=self.name,
            protector_sha256=self.sha256,
            key=check_value(key),
            epsilon=() if self.spent is None else (float(self.spent.value), float(self.spent.image)),
        )

    def require_images(self, images: Tensor) -> None:
        """Let faces of the right shape and range through.

        Raises:
            UsageError: when they are not (N, 3, 112, 112) float32 in [0, 1].
        """
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, SIDE, SIDE) or not len(images):
            raise UsageError(
                f"Faces have shape {list(images.shape)}.",
                hint="Give (N, 3, 112, 112), aligned to the ArcFace template.",
            )
        if images.dtype != torch.float32 or not 0 <= images.min() <= images.max() <= 1:
            raise UsageError(f"Faces are {images.dtype} or leave [0, 1].", hint="Give float32 RGB in [0, 1].")

    def require_key(self, key: bytes | None) -> None:
        """Let a key through only where the method takes one.

        Raises:
            UsageError: when it takes none, or the key is too short.
        """
        if key is not None and not self.keyed:
            raise UsageError(f"{self.name} takes no key.", hint="Leave the key out.")
        if key is not None and len(key) < SHORTEST_KEY:
            raise UsageError(f"The key has {len(key)} bytes.", hint=f"Use at least {SHORTEST_KEY} random ones.")

    def require_own(self, representation: Representation, key: bytes | None = None) -> None:
        """Let through what this protector made, with this key.

        Raises:
            UsageError: naming what differs.
        """
        card = self.recognizer.card
        representation.require_maker((card.name, card.sha256), (self.name, self.sha256))
        shape = tuple(representation.tensor.shape[1:])
        if representation.kind != self.kind or self.row_shape not in (None, shape):
            wanted = "" if self.row_shape is None else f" of shape {list(self.row_shape)}"
            raise UsageError(
                f"{self.name} stores {self.kind} rows{wanted}, not {representation.kind} rows of shape {list(shape)}.",
                hint="Protect the faces again.",
            )
        if representation.key != check_value(key):
            raise UsageError(
                f"The representation was made {'with another key' if representation.key else 'without a key'}.",
                hint="Give the key of its deployment." if representation.key else "Leave the key out.",
            )

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write card and parts into a folder, the card last.

        Raises:
            OutputExists: when there is one already.
            OutputError: when they cannot be written.
        """
        parts = self.parts()
        content = write_parts(parts) if parts else b""
        lines = [
            f"schema = {SCHEMA}",
            *(
                f"{name} = {json.dumps(value, ensure_ascii=False)}"
                for name, value in (
                    ("method", self.name),
                    ("sha256", self.sha256),
                    ("recognizer", self.recognizer.card.name),
                    ("recognizer_sha256", self.recognizer.card.sha256),
                    ("parts_sha256", hashlib.sha256(content).hexdigest() if parts else ""),
                    ("data", self.provenance.data),
                    ("licence", self.provenance.licence),
                    ("seed", self.provenance.seed),
                )
            ),
            "",
            "[settings]",
            *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in self.settings().items()),
            "",
            "[training]",
            *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in self.provenance.training),
        ]
        make_folder(folder)
        if parts:
            write_atomically(folder / PARTS_FILE, content, overwrite=overwrite)
        write_atomically(folder / CARD_FILE, ("\n".join(lines) + "\n").encode(), overwrite=overwrite)


class ImageProtector(Protector):
    """Stores an image that the recogniser, or any other, reads as it is."""

    kind: Kind = "image"
    row_shape = (3, SIDE, SIDE)

    def templates(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """Templates of the stored images, by the unchanged recogniser; see `Protector.templates`."""
        self.require_own(representation, key)
        templates: Tensor = self.recognizer(self.crops(representation.values().to(self.device)))
        return templates.cpu()

    def to_image(self, representation: Representation, key: bytes | None = None) -> Tensor:
        """The stored image itself; see `Protector.to_image`."""
        self.require_own(representation, key)
        return representation.values().clamp(0, 1)


def find_device(name: str) -> torch.device:
    """A device on which something can be computed.

    Raises:
        UsageError: when there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` makes tensors, and no numbers
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UsageError(
            f"Nothing can be computed on {name!r}: {str(error).splitlines()[0]}", hint="Leave device out, or say cpu."
        ) from error
    return device


def unknown_generator() -> torch.Generator:
    """A generator whose whole state, 19,937 bits, comes from the operating system.

    Of a seed torch's generator on the CPU takes 32 bits, which a thief of what is stored would try one by one.
    """
    generator = torch.Generator()
    state = generator.get_state()
    # The seed (64 bits), how many words are left (32), whether it is seeded (32), the next word's place (64); then
    # the words of the Mersenne twister, 32 bits in 64 each.
    header, words = state[:24].numpy().tobytes(), np.frombuffer(secrets.token_bytes(4 * WORDS), "<u4")
    content = header + words.astype("<u8").tobytes() + state[24 + 8 * WORDS :].numpy().tobytes()
    return generator.set_state(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def shipped_protectors() -> list[str]:
    """Names of the fitted protectors that travel with Bauta."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CARD_FILE}"))


@checked
def load_protector(folder: PathLike, recognizer: Surrogate | None = None) -> Protector:
    """The protector that `Protector.save` wrote.

    Args:
        folder: Where it was saved, or the name of one that ships.
        recognizer: Its recogniser; by default the one its card names is loaded.

    Raises:
        WeightsMissing: when the card or the parts are not there.
        WeightsCorrupt: when they are damaged.
        UsageError: when the card does not follow the schema, or the recogniser is another than the card's.
        RecognizerError: when the recogniser cannot be loaded.
    """
    folder = Path(folder)
    if folder.name == str(folder) and not folder.exists() and (SHIPPED / folder).is_dir():
        folder = SHIPPED / folder
    path = folder / CARD_FILE
    if not path.is_file():
        raise WeightsMissing(
            f"{folder} holds no protector: {path.name} is not there.",
            hint=f"`bauta templates fit` makes one. These ship with Bauta: {', '.join(shipped_protectors())}.",
        )
    about = read_card(path)
    surrogate = recognizer or load_surrogate(about.recognizer)
    card = surrogate.card
    if (card.name, card.sha256) != (about.recognizer, about.recognizer_sha256):
        raise UsageError(
            f"The protector is for {shown(about.recognizer)} ({about.recognizer_sha256[:12]}), "
            f"not for {card.name!r} ({card.sha256[:12]}).",
            hint="Use its recogniser, or fit a protector for this one.",
        )
    parts = _read_parts(folder / PARTS_FILE, about.parts_sha256) if about.parts_sha256 else {}
    provenance = Provenance(about.data, about.licence, about.seed, tuple(about.training.items()))
    made = load_method(about.method, kind="protector")
    try:
        protector: Protector = made.restore(surrogate, about.settings, parts, provenance)
        require_parts(parts, protector.parts())
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError, AssertionError) as error:
        raise WeightsCorrupt(
            f"The settings in {path} and what was learned do not make a protector of the method {about.method!r}.",
            hint="Fit the protector again.",
        ) from error
    if protector.sha256 != about.sha256:
        raise WeightsCorrupt(
            f"{path} says {about.sha256[:12]}; its settings and parts are {protector.sha256[:12]}.",
            hint="The card was changed: fit the protector again, or restore the card.",
        )
    return protector


def _read_parts(path: Path, sha256: str) -> dict[str, Tensor]:
    content = read_content(path, "The learned parts")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsCorrupt(f"{path} has SHA-256 {found}; its card says {sha256}.", hint="Fit the protector again.")
    parts = read_parts(content, str(path))
    require_finite(parts)
    return parts
