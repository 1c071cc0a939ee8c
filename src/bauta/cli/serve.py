"""``bauta serve``: the face service over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bauta.cli.console import show_note
from bauta.cli.on_store import (
    SHIPPED,
    Aligned,
    Fmr,
    Former,
    FormerThreshold,
    Key,
    Keys,
    Place,
    Protector,
    Threshold,
    needs_server,
    opened,
    places,
    service_of,
)
from bauta.cli.secrets import AskPassphrase, PassphraseFile, gallery_key
from bauta.cli.store import create
from bauta.errors import UsageError


def serve(
    place: Place = "gallery",
    keys: Keys = None,
    key: Key = None,
    passphrase_file: PassphraseFile = None,
    ask_passphrase: AskPassphrase = False,
    protector: Protector = SHIPPED,
    fmr: Fmr = 1e-4,
    threshold: Threshold = None,
    former: Former = None,
    former_threshold: FormerThreshold = None,
    aligned: Aligned = False,
    search: Annotated[
        str,
        typer.Option(metavar="WAY", help="exact, or faiss: 8 bits a value sift first; for 100,000 records and more."),
    ] = "exact",
    shards: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that hold the index; each searches its part.")
    ] = 1,
    ray: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="ADDRESS", help="A Ray cluster that holds the shards: its address, or local."),
    ] = None,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="EPSILON", help="As of `bauta gallery init`, for a gallery that is made here."),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for one that is free.")] = 7500,
    certificate: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.pem", help="Speak TLS with this certificate."),
    ] = None,
    certificate_key: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE.pem", help="The private key of the certificate."),
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="A proxy speaks TLS; listen beyond this machine without.")
    ] = False,
    megabytes: Annotated[int, typer.Option(min=1, max=100, help="Of a photo.")] = 10,
    requests: Annotated[int, typer.Option(min=1, help="That a key gets in a minute.")] = 600,
    comparisons: Annotated[int, typer.Option(min=1, help="That a key gets with one person in an hour.")] = 60,
    at_once: Annotated[int, typer.Option(min=1, max=1000, help="Requests that are worked on at a time.")] = 32,
) -> None:
    """Answer clients over HTTP, until interrupted. A gallery that is not there is made."""
    try:
        from bauta.gallery.indexes import index_maker
        from bauta.server.access import SCOPES, ServerLimits, make_key
        from bauta.server.serve import listen
        from bauta.server.serve import serve as run
    except ModuleNotFoundError as error:
        raise needs_server(error, "The service") from error
    from bauta.keys import create_key_file

    if (certificate is None) != (certificate_key is None):
        raise UsageError("TLS needs a certificate and its key.", hint="Give --certificate and --certificate-key.")
    index = index_maker(search, shards, ray)  # type: ignore[arg-type]
    limits = ServerLimits(megabytes=megabytes, requests=requests, comparisons=comparisons, at_once=at_once)
    listening = listen(host, port, secure=certificate is not None, behind_proxy=behind_proxy)
    with listening:
        database, _ = places(place, keys)
        fresh = isinstance(database, Path) and not database.exists()
        if budget is not None and not fresh:
            raise UsageError("The gallery is there, and keeps the budget it was made with.", hint="Leave --budget out.")
        if fresh and key is not None and not key.exists() and passphrase_file is None and not ask_passphrase:
            create_key_file(key)
        secret = gallery_key(key, passphrase_file, ask_passphrase, new=fresh)
        if fresh:
            create(place, keys, secret, protector, budget=budget)
        with opened(place, keys, secret) as store:
            service = service_of(
                store,
                protector,
                former,
                fmr=fmr,
                threshold=threshold,
                former_threshold=former_threshold,
                aligned=aligned,
                index=index,
            )
            service.require_former()
            scheme = "http" if certificate is None else "https"
            where, at = listening.getsockname()[:2]
            print(f"Listening on {scheme}://{f'[{where}]' if ':' in where else where}:{at}", flush=True)
            if fresh:
                print(f"Key     {make_key(store, 'main', SCOPES).secret}", flush=True)
                show_note("this key may do everything with the tenant main, for a year. It is shown once.")
            run(
                service,
                listening,
                limits,
                certificate=certificate,
                certificate_key=certificate_key,
                behind_proxy=behind_proxy,
            )
    print("Ended.")
