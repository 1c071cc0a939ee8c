"""``bauta gallery budget``: what was released of a person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bauta.cli.console import show_facts, show_notes
from bauta.cli.on_store import AsJson, Subject, Tenant, on_store
from bauta.cli.people import gallery as gallery

if TYPE_CHECKING:
    from bauta.gallery.store import Store


@gallery.command("budget")
@on_store
def budget(
    store: Store,
    subject: Subject,
    tenant: Tenant = "main",
    as_json: AsJson = False,
) -> None:
    """What was spent of a person's budget of differential privacy, and what is left of it."""
    from bauta.gallery.budgets import budget_of

    found = budget_of(store, tenant, subject)
    if as_json:
        names = ("spent", "photos", "limit", "left")
        print(json.dumps({name: None if found is None else getattr(found, name) for name in names}))
        return
    if found is None:
        show_facts([("spent", "not counted")])
        show_notes(["the protector of this gallery promises no epsilon; `bauta methods peep` names one that does."])
        return
    show_facts([("spent", found.words), ("left", "no limit" if found.left is None else f"{found.left:,.10g}")])
    show_notes(
        [
            "each stored photo may make any other output e^epsilon times as likely: above some 10 that limits nothing.",
            "replaced records are counted: who copied one has it. Erasing the person erases the count.",
        ]
    )
