"""The card of an attacker: what a result that names one must say of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from bauta.errors import UsageError
from bauta.schema import Count
from bauta.settings import Range

Knowledge = Literal["nothing", "pairs", "mechanism", "key"]


@dataclass(frozen=True)
class AttackerCard:
    """Who attacks, with what knowledge and from what training.

    Attributes:
        name: What tables call it.
        knowledge: ``nothing`` of the protection; ``pairs``, clean photos and what the protection makes of them, as
            anybody has who can run it; ``mechanism``, its inner workings and parameters; ``key``, its secrets too.
        adaptive: Whether it was made against this protection.
        paper: Citation, or "our design".
        ours: What here is not the paper's; "" when nothing is.
        data: Name of what it trained on; "" for an attacker who does not train.
        data_sha256: Over that data.
        people: How many people that shows, disjoint from those of the evaluation.
        images: How many images it trained on, protected and clean.
        epochs: How often it saw them; 0 for an attacker in closed form.
        rate: Largest learning rate.
        batch: Images in a step.
        seed: Of its training.
        stopped: Why the training ended: ``epochs``, ``solved`` in closed form, or ``not finite`` when the loss was not
            and the last good epoch was kept; "" without training.

    Raises:
        UsageError: when it has no name, or trains on nobody.
    """

    name: str
    knowledge: Knowledge
    adaptive: bool
    paper: str
    ours: str = ""
    data: str = ""
    data_sha256: str = ""
    people: Count = 0
    images: Count = 0
    epochs: Count = 0
    rate: Annotated[float, Range(at=0)] = 0.0
    batch: Count = 0
    seed: int = 0
    stopped: Literal["", "epochs", "not finite", "solved"] = ""

    def __post_init__(self) -> None:
        counts, schedule = (self.people, self.images), (self.epochs, self.rate, self.batch)
        trained, solved = bool(self.data), self.stopped == "solved"
        right = all(number > 0 for number in counts) if trained else not any(counts)
        right &= all(number > 0 for number in schedule) if trained and not solved else not any(schedule)
        checks = {
            "name": bool(self.name),
            "knowledge": self.knowledge in get_args(Knowledge),
            "paper": bool(self.paper),
            "stopped": self.stopped in (("epochs", "not finite", "solved") if trained else ("",)),
            "data": right,
        }
        for field, good in checks.items():
            if not good:
                raise UsageError(
                    f"Attacker card {self.name!r}: {field} is {getattr(self, field)!r}.",
                    hint="Who trains says on how many people and images, how long, and how that ended.",
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for result cards."""
        return asdict(self)
