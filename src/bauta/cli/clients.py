"""``bauta gallery key``, ``keys`` and ``unkey``: who may ask the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bauta.cli.console import show_facts, show_note, show_table
from bauta.cli.on_store import Tenant, on_store
from bauta.cli.store import gallery as gallery

if TYPE_CHECKING:
    from bauta.gallery.store import Store


@gallery.command("key")
@on_store
def key_for_clients(
    store: Store,
    scopes: Annotated[
        list[str],
        typer.Argument(help="Of enrol, match, search, read, revoke, renew, erase, audit, admin."),
    ],
    tenant: Tenant = "main",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it ends.")] = 365,
) -> None:
    """Make a key for clients of `bauta serve`, which may do so much. It is shown once."""
    from bauta.server.access import make_key

    made = make_key(store, tenant, scopes, days)
    print(made.secret)
    show_note(f"this is shown once; `bauta gallery unkey` with {made.id} ends it.")


@gallery.command("keys")
@on_store
def list_keys(
    store: Store,
) -> None:
    """The keys of clients: what they may do, and until when."""
    from datetime import UTC, datetime

    rows = store.api_keys()
    show_table(
        ("KEY", "TENANT", "ENDS", "MAY"),
        [(one.id, one.tenant, f"{datetime.fromtimestamp(one.expires, UTC):%Y-%m-%d}", one.scopes) for one in rows],
    )


@gallery.command("unkey")
@on_store
def unkey(
    store: Store,
    ident: Annotated[str, typer.Argument(metavar="KEY", help="Its id, of `bauta gallery keys`.", show_default=False)],
) -> None:
    """End a key of a client at once."""
    from bauta.server.access import remove_key

    remove_key(store, ident)
    show_facts([("ended", ident)])
