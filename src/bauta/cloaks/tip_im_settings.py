"""Settings of TIP-IM: ours, the paper's, and those of the official code; see `bauta.cloaks.tip_im`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from bauta.cloaks.base import Mode
from bauta.settings import Flag, Range, Settings

Gain = Literal["gain1", "gain2", "gain3"]


@dataclass(frozen=True)
class TipImConfig(Settings):
    """Settings of TIP-IM; the defaults are Bauta's, see `paper` and `official_code` for the others.

    Attributes:
        mode: ``dodge`` moves away from the person, ``impersonate`` towards the best of the targets, ``combined``
            does both (the paper's loss).
        iterations: Upper bound N.
        epsilon: Box around the photo, in 1/255.
        psnr: Floor of the PSNR over the face region, in dB; None leaves the box as the only budget.
        ssim: Floor of the SSIM over the face region; a penalty with a multiplier for each face holds it. None for
            no such floor.
        norm: Step rule, ``l2`` or ``linf``.
        step: Multiplier a of the step length: a * epsilon / N, or a * (the RMS of `psnr`) / N when there is a floor.
        decay: Momentum decay mu.
        away: Weight of moving away from the person beside moving towards a target, in ``combined``.
        targets: Number K of target faces used.
        greedy: Try one step towards each of several targets at every iteration and keep the best (Algorithm 1).
            Otherwise the target nearest to the present embedding is taken, and one step is enough.
        pruning: With `greedy`, which targets are tried: those whose term of the gain is behind the leader's by at
            most this many times the widest spread of one term over the last candidates, which is what the choice
            among them can change. Once a single target is left, nothing is scored any more. None tries all and
            scores all, as the paper does.
        gain: ``gain3`` is equation 7, ``gain1`` Center-Opt, ``gain2`` the minimum.
        gamma: Weight of the MMD term.
        movement: Range of the standard deviations of the random affine movement of the crop; (0, 0) for none.
        transports: Draw a transport (JPEG, resize, blur, tone) at every iteration.
        smoothing: Standard deviation of the Gaussian that smooths gradients, in pixels of a 112-pixel crop.
        texture: Exponent of the just-noticeable-difference map that weights gradients; 0 for none.
        margin: Early stop when every surrogate is past its threshold by this much in cosine, under every transport
            of `finished`. None never stops early: a mask that just passes on its surrogates fails on others, and
            the published figures are without it.
    """

    title: ClassVar[str] = "TIP-IM"
    presets: ClassVar[tuple[str, ...]] = ("paper", "official-code")

    mode: Mode = "dodge"
    iterations: Annotated[int, Range(at=1, to=10_000), Flag("steps")] = 60
    epsilon: Annotated[float, Range(above=0, to=255), Flag("eps")] = 16.0
    psnr: Annotated[float, Range(at=10, to=60)] | None = 32.1
    ssim: Annotated[float, Range(above=0, below=1)] | None = 0.941
    norm: Literal["linf", "l2"] = "l2"
    step: Annotated[float, Range(above=0, to=1000)] = 8.0
    decay: Annotated[float, Range(at=0, to=1)] = 0.8
    away: Annotated[float, Range(above=0, to=100)] = 0.8
    targets: Annotated[int, Range(at=1, to=1000)] = 10
    greedy: bool = False
    pruning: Annotated[float, Range(at=0)] | None = 1.0
    gain: Gain = "gain3"
    gamma: Annotated[float, Range(at=0)] = 0.0
    movement: Annotated[tuple[float, float], Range(at=0, to=1)] = (0.01, 0.06)
    transports: bool = True
    smoothing: Annotated[float, Range(at=0, to=20)] = 1.0
    texture: Annotated[float, Range(at=0, to=4)] = 1.0
    margin: Annotated[float, Range(at=-1, to=1)] | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Targets that are tried need to be there, and a range begins below where it ends."""
        if self.greedy and self.mode == "dodge":
            yield "greedy", "greedy needs a mode with targets."
        if self.movement[0] > self.movement[1]:
            yield "movement", "Its first number is the smaller one."

    @classmethod
    def paper(cls, **changes: Any) -> TipImConfig:
        """The paper's settings: 50 sign steps in an l-inf ball of 12/255, gain of equation 7, gamma 0.

        Its naturalness term is off here, as it is in the paper's main tables' gamma = 0 row and in the code;
        ask for ``gamma=1`` to 3 to have it. The learning rate "1.5" of the text is read as the code reads it.
        """
        return replace(cls(**_FAITHFUL, iterations=50, norm="linf"), **changes)

    @classmethod
    def official_code(cls, **changes: Any) -> TipImConfig:
        """The defaults of the official code's command line: 100 l2 steps, clipped to an l-inf box of 12/255."""
        return replace(cls(**_FAITHFUL, iterations=100, norm="l2"), **changes)


_FAITHFUL: dict[str, Any] = {
    "mode": "combined",
    "epsilon": 12.0,
    "psnr": None,
    "ssim": None,
    "step": 1.5,
    "decay": 1.0,
    "away": 1.0,
    "greedy": True,
    "pruning": None,
    "movement": (0.01, 0.1),
    "transports": False,
    "smoothing": 0.0,
    "texture": 0.0,
}
