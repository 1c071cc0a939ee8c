"""What a method for photos is: it is shown views of faces, and answers with an edit of each.

A cloak never sees files, whole photos or judges. `bauta.cloaking.apply` cuts the views, calls `Cloak.edit`, checks what
came back, and carries it to the photo's own resolution. The least that a cloak can be::

    @dataclass(frozen=True)
    class GreyConfig(Settings):
        \"\"\"Settings of the grey veil.

        Attributes:
            amount: How much of the face becomes grey.
        \"\"\"

        title: ClassVar[str] = "grey"
        amount: Annotated[float, Range(at=0, to=1)] = 0.5


    @register("grey", kind="cloak")
    class Grey(Cloak[GreyConfig]):
        Config = GreyConfig

        def edit(self, views, work):
            return [Edit(view, (0.5 - view.pixels) * self.config.amount * view.region) for view in views]

Its options appear in ``bauta protect --method grey --help``, in ``bauta methods grey`` and in recipes by themselves.
What else a method can do it says by the methods that it has: `FitsPerson`, `Reads`, `Restores`.

Nothing heavy is imported here, so that a command line can show options without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast, get_args, runtime_checkable

from bauta.cloaks.view import ViewSpec
from bauta.errors import InvalidEdit, UsageError
from bauta.progress import Steps, silent
from bauta.registry import MethodCard, load_method
from bauta.settings import Settings

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from bauta.cloaks.album import Album
    from bauta.cloaks.view import FaceView
    from bauta.learning.fitted import Fitted
    from bauta.recognizers.ensemble import Ensemble

Aim = Literal["dodge", "impersonate", "trace", "restore"]
"""What an edit is for: not to match the person, to match somebody else, to be read by whoever holds the key, to be
taken off again."""

Need = Literal["surrogates", "key", "message", "fitted", "reference"]
"""What a cloak must be given: recognisers to attack, a secret, a text to carry, what it learned of the person, another
face."""

Mode = Literal["dodge", "impersonate", "combined"]
"""Away from the person, towards the best of several targets, or both (the loss of TIP-IM)."""

Strength = Literal["low", "medium", "high"]
Scalar = str | int | float | bool

C = TypeVar("C", bound=Settings)


@dataclass(frozen=True, eq=False)
class Edit:
    """What happens to one view: its pixels are moved by a smooth warp, and then a perturbation is added.

    ``result(x) = pixels(x + warp(x)) + delta(x)``. An edit that is not one cannot be made:

    >>> import torch
    >>> from bauta.cloaks.view import FaceView
    >>> view = FaceView(torch.zeros(3, 16, 16), torch.zeros(5, 2), torch.ones(1, 16, 16))
    >>> Edit(view, torch.full((3, 16, 16), 0.1)).facts
    {}
    >>> Edit(view, torch.full((3, 16, 16), float("nan")))
    Traceback (most recent call last):
    bauta.errors.InvalidEdit: The perturbation holds NaN or infinity. Leave out the recogniser that caused it.

    Attributes:
        view: The view that it is an edit of.
        delta: (3, H, W) float32 in [-1, 1], added to the pixels; 0 outside the view's region. Equal in all channels of
            a greyscale view.
        warp: (2, H, W) float32, x and y in view pixels: from where each pixel is fetched, less where it is. Smooth, 0
            outside the region, and without folds; None where nothing moves.
        facts: What is worth knowing of it, such as ``{"iterations": 60}``, for reports and result cards.
        payload: Bytes that whoever takes the edit off again will need; b"" for none.

    Raises:
        InvalidEdit: when a shape or type is wrong, a number is not finite or out of range, something lies outside the
            region, or the warp folds.
    """

    view: FaceView
    delta: Tensor
    warp: Tensor | None = None
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    payload: bytes = b""

    def __post_init__(self) -> None:
        height, width = self.view.pixels.shape[-2:]
        _require_map(self.delta, (3, height, width), "perturbation")
        if float(self.delta.abs().max()) > 1 + 1e-6:
            raise InvalidEdit("The perturbation leaves [-1, 1].", hint="1 is white minus black.")
        outside = self.view.region[0] == 0
        if self.delta[:, outside].any():
            raise InvalidEdit("The perturbation leaves the view's region.", hint="Multiply it by view.region.")
        if self.view.grey and float((self.delta - self.delta[:1]).abs().max()) > 1e-6:
            raise InvalidEdit("The perturbation would colour a greyscale photo.", hint="Average it over the channels.")
        if self.warp is not None:
            _require_map(self.warp, (2, height, width), "warp")
            if self.warp[:, outside].any():
                raise InvalidEdit("The warp leaves the view's region.", hint="Fade it out by view.region.")
            if (least := least_jacobian(self.warp)) <= 0:
                raise InvalidEdit(
                    f"The warp folds: its Jacobian falls to {least:.2g}.",
                    hint="Make it smoother, or its amplitude smaller.",
                )
        for name, value in self.facts.items():
            if not isinstance(name, str) or not isinstance(value, get_args(Scalar)):
                raise InvalidEdit(f"The fact {name!r} is {type(value).__name__}.", hint="Facts are texts and numbers.")
        if not isinstance(self.payload, bytes):
            raise InvalidEdit("The payload is not bytes.", hint="Leave it out, or give bytes.")


def _require_map(values: object, shape: tuple[int, int, int], what: str) -> None:
    import torch

    if not isinstance(values, torch.Tensor) or tuple(values.shape) != shape or not values.is_floating_point():
        there = f"{values.dtype} of shape {list(values.shape)}" if isinstance(values, torch.Tensor) else repr(values)
        raise InvalidEdit(f"The {what} is {there[:80]}.", hint=f"It must be float32 of shape {list(shape)}.")
    if not bool(values.isfinite().all()):
        raise InvalidEdit(f"The {what} holds NaN or infinity.", hint="Leave out the recogniser that caused it.")


def least_jacobian(displacement: Tensor) -> float:
    """The smallest determinant of the derivative of x -> x + displacement(x); the map folds where it is not positive.

    Between four pixels the map is bilinear, and then it is one-to-one exactly when the determinant is positive at the
    four corners, by the differences along the sides that meet there.

    >>> import torch
    >>> least_jacobian(torch.zeros(2, 8, 8))
    1.0

    Args:
        displacement: (2, H, W), x and y in pixels.
    """
    import torch

    along_x, along_y = displacement.diff(dim=2), displacement.diff(dim=1)  # (2, H, W - 1), (2, H - 1, W)
    least = torch.inf
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            across, down = along_x[:, rows], along_y[:, :, columns]
            determinant = (1 + across[0]) * (1 + down[1]) - across[1] * down[0]
            least = min(least, float(determinant.min()))
    return least


@dataclass(frozen=True, eq=False)
class Work:
    """What a cloak is given beside the views.

    >>> Work.seeded(0, message="anna").message
    'anna'

    Attributes:
        generator: Of every random draw; the same seed gives the same edits. Draw for the batch and not for each face,
            so that the edit of a face does not depend on its company.
        ensemble: The recognisers to attack; None for a cloak that does not need ``surrogates``: none is loaded then.
        thresholds: Cosine from which on a surrogate matches, by name, as far as known.
        fitted: What was learned of people before (`FitsPerson`).
        key: The secret of a cloak that needs one.
        message: The text that an edit carries.
        references: Other faces, for methods that need one to go by.
        album: What earlier photos of the same run look like to surrogates once protected; None to forget them.
        deadline: `time.monotonic` value after which no new iteration starts; one always runs.
        progress: Called with (steps done, steps there are).
        device: Where to compute, such as "cpu".
    """

    generator: torch.Generator
    ensemble: Ensemble | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    fitted: tuple[Fitted, ...] = ()
    key: bytes | None = field(default=None, repr=False)
    message: str | None = None
    references: tuple[FaceView, ...] = ()
    album: Album | None = None
    deadline: float | None = None
    progress: Steps = silent
    device: str = "cpu"

    @classmethod
    def seeded(cls, seed: int, ensemble: Ensemble | None = None, **rest: Any) -> Work:
        """Work whose generator starts from a seed."""
        import torch

        return cls(torch.Generator().manual_seed(seed), ensemble, **rest)

    @property
    def attacked(self) -> Ensemble:
        """The recognisers to attack, where there must be some.

        Raises:
            UsageError: when there are none.
        """
        if self.ensemble is None:
            raise UsageError("There is no recogniser to attack.", hint="Name at least one in --surrogates.")
        return self.ensemble


class Cloak(ABC, Generic[C]):
    """Base of the methods that change photos.

    Attributes:
        card: What the registry says of it; `bauta.registry.register` sets it.
        Config: Its settings, a frozen dataclass; options on the command line are made from them.
        needs: What it must be given; without "surrogates" no recogniser is loaded for it.
        takes: What it may be given besides.
        view: What it wants to be shown.
        aims: What its edits are for.
        sealed: Whether what it learns is the key to its masks, which is stored sealed only.
        version: Of the parts in its `Fitted`; count it up when old ones can no longer be used.

    Args:
        config: Settings; its own defaults when None.
    """

    card: ClassVar[MethodCard]
    Config: ClassVar[type[Settings]]
    needs: ClassVar[frozenset[Need]] = frozenset()
    takes: ClassVar[frozenset[Need]] = frozenset()
    view: ClassVar[ViewSpec] = ViewSpec()
    aims: ClassVar[tuple[Aim, ...]] = ("dodge",)
    sealed: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __init__(self, config: C | None = None) -> None:
        self.config = cast("C", self.Config()) if config is None else config

    @abstractmethod
    def edit(self, views: Sequence[FaceView], work: Work) -> list[Edit]:
        """An edit of each view, in their order.

        Args:
            views: At least one, of any sizes.
            work: Everything else.

        Raises:
            UsageError: when something that it needs is missing.
            NumericalFailure: when a surrogate answers with NaN or infinity.
        """

    def check_clips(self) -> None:
        """Refuse settings that only photos can have.

        Raises:
            UsageError: naming what to leave out.
        """

    def check(self, references: Sequence[FaceView]) -> None:
        """Look at the faces that it is to go by, before any photo is made.

        Raises:
            UsageError: when it cannot go by one.
        """

    @classmethod
    def at_strength(cls, strength: Strength, chosen: Collection[str] = ()) -> Mapping[str, Any]:
        """Settings that a strength stands for; "medium" is what the defaults are, and what benchmarks measure.

        Args:
            strength: How visible the edit may be.
            chosen: Names of the settings that a person chose by hand, which win anyway.
        """
        return {}

    @classmethod
    def escalations(cls, config: C) -> Sequence[C]:
        """Settings to try one after the other while judges still match a face; none by default.

        Each keeps to what may be seen at the strength that `config` stands for.

        Args:
            config: What was tried first.
        """
        return ()

    @classmethod
    def configured(cls, options: Mapping[str, Any], *, strength: Strength | None = None) -> C:
        """Settings from options by name, of which ``preset`` chooses among `Settings.presets`.

        Args:
            options: By name; lists stand for tuples.
            strength: How visible the edit may be; published presets ignore it. None leaves the defaults.

        Raises:
            UsageError: when there is no such setting or preset, or a value is not allowed.
        """
        values = dict(options)
        preset = str(values.pop("preset", "default"))
        if strength is not None and preset == "default":
            values = {**cls.at_strength(strength, values), **values}
        return cast("C", cls.Config.of(values, preset))


def load_cloak(name: str) -> type[Cloak[Any]]:
    """The class of a registered cloak.

    Raises:
        UsageError: when there is none of that name, or its package cannot be used.
    """
    return cast("type[Cloak[Any]]", load_method(name, kind="cloak", base=Cloak))


@runtime_checkable
class FitsPerson(Protocol):
    """A cloak that learns once from a few photos of a person, and then protects each new photo at once."""

    @classmethod
    def fit(cls, views: Sequence[FaceView], config: Any, work: Work) -> Fitted:
        """What it learned, with the names of the ensemble among its teachers.

        Args:
            views: The person's face, one from each photo.
            config: Settings, of the cloak's ``Config``.
            work: The ensemble is always there, whatever the cloak needs when it protects.
        """


@dataclass(frozen=True)
class Reading:
    """What was read from one face.

    Attributes:
        message: The text; None when there is none, or the key is another one.
        chance: Probability that a face without a mark would have been read so, in [0, 1].
        facts: What else is worth knowing, such as the bits that were corrected.
    """

    message: str | None
    chance: float
    facts: Mapping[str, Scalar] = field(default_factory=dict)


@runtime_checkable
class Reads(Protocol):
    """A cloak whose edits carry a message."""

    def read(self, views: Sequence[FaceView], work: Work) -> list[Reading]:
        """What each view carries; with another key than the edit's, nothing."""


@runtime_checkable
class KnowsPayloads(Protocol):
    """A cloak of whose edits few can be: which one a face has can be found by trying."""

    def possible(self, work: Work) -> Sequence[bytes]:
        """Every payload that an edit made with this work can have."""


@runtime_checkable
class Restores(Protocol):
    """A cloak whose edits can be taken off again."""

    def restore(self, views: Sequence[FaceView], payloads: Sequence[bytes], work: Work) -> list[Edit]:
        """For each view of a protected photo the edit that gives back the face.

        Args:
            views: Cut where the views were cut that `Cloak.edit` was shown.
            payloads: Of those edits; b"" where none is known.
            work: With the key or the fitted parts that the method needs.

        Raises:
            UsageError: when the key is another one, or the photo was changed too much since.
        """


class Carried(Protocol):
    """An edit of one face that goes along with it, from frame to frame, in the face's own frame."""

    def on(self, view: FaceView) -> Edit:
        """The edit of the next frame; no recogniser is asked. One that has frames in mind begins anew as a copy."""


@runtime_checkable
class Follows(Protocol):
    """A cloak for clips: what it makes once for a face is carried through a shot and does not flicker."""

    def follow(self, views: Sequence[FaceView], work: Work) -> Carried:
        """The edit of one face.

        Args:
            views: The face in some frames of the shot, in their order.
            work: As for `Cloak.edit`.
        """


@runtime_checkable
class Resumes(Follows, Protocol):
    """A cloak whose carried edits take long to make and can be kept."""

    def kept(self, carried: Carried) -> Mapping[str, NDArray[Any]]:
        """What must be kept of one, by name."""

    def resumed(self, kept: Mapping[str, NDArray[Any]]) -> Carried:
        """It again, with the same settings."""
