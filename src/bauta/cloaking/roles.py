"""Which recognisers are attacked and which judge. One network is never both, unless no other is there to judge."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bauta.cloaking.settings import ProtectSettings
from bauta.errors import NotCalibrated, RecognizerError
from bauta.rates import FMRS
from bauta.recognizers.calibration import Threshold, threshold
from bauta.recognizers.cards import RecognizerCard, require_role, separate, taught_by
from bauta.recognizers.catalog import find_card, list_recognizers

MAX_SURROGATES = 4
"""How many recognisers "auto" attacks: each costs a forward and a backward pass in every iteration."""


@dataclass(frozen=True)
class Roles:
    """The recognisers of one run.

    Attributes:
        surrogates: Attacked as torch modules.
        judges: Only evaluated, in a runtime without gradients.
        attacked: Names of judges that are also surrogates, or that a surrogate learned from: what they say confirms
            nothing. Surrogates are among them only when no independent judge is installed.
        thresholds: By judge, cosine thresholds by FMR; empty for a judge that was not calibrated.
    """

    surrogates: tuple[RecognizerCard, ...]
    judges: tuple[RecognizerCard, ...]
    attacked: frozenset[str]
    thresholds: dict[str, dict[float, Threshold]]

    @property
    def independent(self) -> bool:
        """Whether a result can be confirmed: by a calibrated judge that was not attacked."""
        return any(card.name not in self.attacked and self.thresholds[card.name] for card in self.judges)


def choose_roles(settings: ProtectSettings, *, attacks: bool = True, fitted_against: Collection[str] = ()) -> Roles:
    """Decide which recognisers are attacked and which judge.

    By default the recognisers with a surrogate's role are attacked, those that Bauta ships or
    finds in packages first and at most `MAX_SURROGATES`. Judges are those with a judge's role only, or else
    all that are not attacked. When none is left, attacked ones judge in their own runtime, and are marked.

    Args:
        settings: Which are named.
        attacks: Whether the method attacks any while it protects.
        fitted_against: Names of those that the method was fitted against before: they count as attacked.

    Raises:
        UnknownRecognizer: when a name is not known.
        RoleRefused: when a card forbids the role asked for, or one network is asked to play both.
        RecognizerError: when nothing can be attacked or nothing can judge.
    """
    here = [card for card in list_recognizers() if card.weights.is_file()]
    surrogates = _choose_surrogates(settings, here) if attacks else []
    taught = _taught(surrogates, here, fitted_against)
    judges = _choose_judges(settings, here, surrogates, taught)
    for role, cards in (("surrogate", surrogates), ("judge", judges)):
        for card in cards:
            require_role(card, role)
    thresholds = {card.name: _thresholds(card, settings.fmr) for card in (*judges, *surrogates)}
    last_resort: list[RecognizerCard] = []
    if not any(thresholds[card.name] for card in judges if card.name not in taught):
        last_resort = [card for card in surrogates if "judge" in card.roles]
    if not judges and not last_resort:
        raise RecognizerError(
            "There is no recogniser to judge the result.",
            hint="Add one with `bauta recognizers add`, or attack fewer with --surrogates.",
        )
    asked = (*judges, *last_resort)
    return Roles(
        surrogates=tuple(surrogates),
        judges=asked,
        attacked=frozenset(card.name for card in asked if card in last_resort or card.name in taught),
        thresholds={card.name: thresholds[card.name] for card in asked},
    )


def _choose_surrogates(settings: ProtectSettings, here: Sequence[RecognizerCard]) -> list[RecognizerCard]:
    """Those named, or else the first that may be attacked and were not named as judges."""
    if settings.surrogates == "auto":
        asked = () if settings.judges == "auto" else settings.judges
        judging = {find_card(name).sha256 for name in asked}
        chosen = [card for card in here if "surrogate" in card.roles and card.sha256 not in judging][:MAX_SURROGATES]
    else:
        chosen = [find_card(name) for name in settings.surrogates]
    if not chosen:
        raise RecognizerError(
            "There is no recogniser to attack.",
            hint="Name one in --surrogates, or add one: `bauta recognizers add model.onnx --card card.toml`.",
        )
    return chosen


def _choose_judges(
    settings: ProtectSettings,
    here: Sequence[RecognizerCard],
    surrogates: Sequence[RecognizerCard],
    taught: frozenset[str],
) -> list[RecognizerCard]:
    """Those named, or else the most independent that are here."""
    if settings.judges != "auto":
        judges = [find_card(name) for name in settings.judges]
        separate(surrogates, judges)
        return judges
    networks = {card.sha256 for card in surrogates}
    free = [card for card in here if "judge" in card.roles and card.sha256 not in networks]
    # A network that others may attack is a poorer witness than one that is never attacked.
    judges = [card for card in free if "surrogate" not in card.roles] or free
    return [card for card in judges if card.name not in taught] or judges


def _taught(
    surrogates: Sequence[RecognizerCard], here: Sequence[RecognizerCard], fitted_against: Collection[str]
) -> frozenset[str]:
    """Names of the recognisers that the mask knows of: a surrogate learned from them, or a fit attacked them."""
    teachers = [card for card in here if card.name in fitted_against]
    networks = {card.sha256 for card in teachers}
    same = {card.name for card in here if card.sha256 in networks}
    return taught_by([*surrogates, *teachers]) | same | frozenset(fitted_against)


def _thresholds(card: RecognizerCard, fmr: float) -> dict[float, Threshold]:
    """The thresholds there are; none without the one that verdicts need."""
    found = {}
    for rate in FMRS:
        try:
            found[rate] = threshold(card, rate)
        except NotCalibrated:
            continue
    return found if fmr in found else {}
