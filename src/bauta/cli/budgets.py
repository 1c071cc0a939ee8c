"""``bauta gallery budget``: what was released of a person."""

from __future__ import annotations

import json

from bauta.cli.console import show_facts, show_notes
from bauta.cli.people import gallery as gallery
from bauta.cli.secrets import AskPassphrase, PassphraseFile
from bauta.cli.store import AsJson, Key, Keys, Place, Subject, Tenant, opened


@gallery.command("budget")
def budget(
    place: Place,
    subject: Subject,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    as_json: AsJson = False,
) -> None:
    """What was spent of a person's budget of differential privacy, and what is left of it."""
    from bauta.gallery.budgets import budget_of

    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
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
