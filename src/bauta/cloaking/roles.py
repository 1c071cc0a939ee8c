"""Who is attacked and who judges. The same network is never both, unless nobody else is there to judge."""

from __future__ import annotations

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
class Cast:
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
        """Whether somebody can confirm a result: a calibrated judge that was not attacked."""
        return any(card.name not in self.attacked and self.thresholds[card.name] for card in self.judges)


def choose_cast(settings: ProtectSettings) -> Cast:
    """Decide who is attacked and who judges.

    By default the recognisers with a surrogate's role are attacked, those that Bauta ships or
    finds in packages first and at most `MAX_SURROGATES`. Judges are those with a judge's role only, or else
    all that are not attacked. When none is left, attacked ones judge in their own runtime, and are marked.

    Raises:
        UnknownRecognizer: when a name is not known.
        RoleRefused: when a card forbids the role asked for, or one network is asked to play both.
        RecognizerError: when nothing can be attacked or nothing can judge.
    """
    known = [card for card in list_recognizers() if card.weights.is_file()]
    if settings.surrogates == "auto":
        surrogates = [card for card in known if "surrogate" in card.roles]
        if settings.judges != "auto":
            wanted = {find_card(name).sha256 for name in settings.judges}
            surrogates = [card for card in surrogates if card.sha256 not in wanted]
        surrogates = surrogates[:MAX_SURROGATES]
    else:
        surrogates = [find_card(name) for name in settings.surrogates]
    if not surrogates:
        raise RecognizerError(
            "There is no recogniser to attack.",
            hint="Name one in --surrogates, or add one: `bauta recognizers add model.onnx --card card.toml`.",
        )
    networks, kin = {card.sha256 for card in surrogates}, taught_by(surrogates)
    if settings.judges == "auto":
        free = [card for card in known if "judge" in card.roles and card.sha256 not in networks]
        # A network that others may attack is a poorer witness than one that nobody ever does.
        judges = [card for card in free if "surrogate" not in card.roles] or free
        judges = [card for card in judges if card.name not in kin] or judges
    else:
        judges = [find_card(name) for name in settings.judges]
        separate(surrogates, judges)
    for role, cards in (("surrogate", surrogates), ("judge", judges)):
        for card in cards:
            require_role(card, role)
    thresholds = {card.name: _thresholds(card, settings.fmr) for card in (*judges, *surrogates)}
    attacked: list[RecognizerCard] = []
    if not any(thresholds[card.name] for card in judges if card.name not in kin):
        attacked = [card for card in surrogates if "judge" in card.roles]
    if not judges and not attacked:
        raise RecognizerError(
            "There is no recogniser to judge the result.",
            hint="Add one with `bauta recognizers add`, or attack fewer with --surrogates.",
        )
    everyone = (*judges, *attacked)
    return Cast(
        tuple(surrogates),
        everyone,
        frozenset(card.name for card in everyone if card in attacked or card.name in kin),
        {card.name: thresholds[card.name] for card in everyone},
    )


def _thresholds(card: RecognizerCard, fmr: float) -> dict[float, Threshold]:
    """The thresholds there are; none without the one that verdicts need."""
    found = {}
    for rate in FMRS:
        try:
            found[rate] = threshold(card, rate)
        except NotCalibrated:
            continue
    return found if fmr in found else {}
