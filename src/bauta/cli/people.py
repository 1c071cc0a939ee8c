"""``bauta gallery people`` and ``migrate``: who is enrolled, and how a gallery gets another protector."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bauta.cli.clients import gallery as gallery
from bauta.cli.console import clean, show_facts, show_notes, show_table
from bauta.cli.on_store import AsJson, Tenant, Unprotected, actor, on_store
from bauta.errors import UsageError

if TYPE_CHECKING:
    from bauta.gallery.store import Store


@gallery.command()
@on_store
def people(
    store: Store,
    tenant: Tenant = "main",
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only those who wait for a new photo since the gallery was migrated.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The people of a tenant: how many records of each are active, and how many are revoked."""
    from bauta.gallery.store import require_names

    require_names(tenant)
    found = sorted(one for _, one in store.people(tenant, waiting=waiting))
    if as_json:
        rows = [{"name": one.name, "active": one.active, "revoked": one.revoked, "waits": one.waiting} for one in found]
        print(json.dumps(rows))
        return
    show_table(
        ("NAME", "ACTIVE", "REVOKED", "WAITS FOR A PHOTO"),
        [(clean(one.name), str(one.active), str(one.revoked), "yes" if one.waiting else "") for one in found],
    )


@gallery.command()
@on_store
def migrate(
    store: Store,
    protector: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="DIR", help="What makes records from now on: a fitted protector, or one that ships."),
    ] = None,
    unprotected: Unprotected = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Erase what the former protector made, of all who still wait.")
    ] = False,
) -> None:
    """Move a gallery to another protector or recogniser. People match as before until they bring a new photo."""
    from bauta.gallery.service import maker_of, require_protecting
    from bauta.templates.base import load_protector

    if (protector is None) != finish:
        raise UsageError("A migration is begun or finished.", hint="Give --protector, or --finish.")
    if protector is None:
        records, gone = store.drop_former(actor())
        show_facts([("records erased", records), ("people erased", gone)])
        return
    loaded = load_protector(protector)
    require_protecting(loaded, plain=unprotected)
    before = store.maker
    count = store.migrate(maker_of(loaded), actor())
    after = store.maker
    show_facts(
        [
            ("from", f"{before.protector} of {before.recognizer}"),
            ("to", f"{after.protector} of {after.recognizer}"),
            ("people who wait for a new photo", count),
        ]
    )
    show_notes(
        [
            "start services again, with the new protector as --protector and the old one as --former.",
            "who is enrolled again leaves the old protector; `bauta gallery people --waiting` lists the others.",
        ]
    )
