"""``bauta gallery key``, ``keys`` and ``unkey``: who may ask the service."""

from __future__ import annotations

from typing import Annotated

import typer

from bauta.cli.console import show_facts, show_note, show_table
from bauta.cli.secrets import AskPassphrase, PassphraseFile
from bauta.cli.store import Key, Keys, Place, Tenant, opened
from bauta.cli.store import gallery as gallery


@gallery.command("key")
def key_for_clients(
    place: Place,
    scopes: Annotated[
        list[str],
        typer.Argument(help="Of enrol, match, search, read, revoke, renew, erase, audit, admin."),
    ],
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    tenant: Tenant = "main",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until it ends.")] = 365,
) -> None:
    """Make a key for clients of `bauta serve`, which may do so much. It is shown once."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        from bauta.server.access import make_key

        made = make_key(store, tenant, scopes, days)
    print(made.secret)
    show_note(f"this is shown once; `bauta gallery unkey` with {made.id} ends it.")


@gallery.command("keys")
def list_keys(
    place: Place,
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """The keys of clients: what they may do, and until when."""
    from datetime import UTC, datetime

    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        rows = store.api_keys()
    show_table(
        ("KEY", "TENANT", "ENDS", "MAY"),
        [(one.id, one.tenant, f"{datetime.fromtimestamp(one.expires, UTC):%Y-%m-%d}", one.scopes) for one in rows],
    )


@gallery.command("unkey")
def unkey(
    place: Place,
    ident: Annotated[str, typer.Argument(metavar="KEY", help="Its id, of `bauta gallery keys`.", show_default=False)],
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """End a key of a client at once."""
    with opened(place, keys, key, passphrase_file, ask_passphrase) as store:
        from bauta.server.access import remove_key

        remove_key(store, ident)
    show_facts([("ended", ident)])
