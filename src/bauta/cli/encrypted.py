"""``bauta encrypted keygen``, ``serve``, ``dealer``, ``enrol``, ``query`` and ``cost``: matching under encryption."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bauta.cli.console import show_facts, show_note, show_notes, show_table
from bauta.errors import UsageError

if TYPE_CHECKING:
    import ssl

    from bauta.encrypted.dealing import RemoteTapes
    from bauta.encrypted.door import Door
    from bauta.encrypted.keys import DoorKey

encrypted = typer.Typer(no_args_is_help=True, help="Ask a gallery whether it knows a face; neither side learns more.")

Faces = Annotated[
    list[Path],
    typer.Argument(help="Photos or folders, one face each, or one .npy file of embeddings.", show_default=False),
]
KeyFile = Annotated[Path, typer.Option("--key", metavar="FILE", help="door.key of `bauta encrypted keygen`.")]
ServerAt = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the server listens.")]
DealerAt = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the dealer listens.")]
Recognizer = Annotated[str, typer.Option(help="Embeds photos; the same on both sides.")]
Aligned = Annotated[bool, typer.Option("--aligned", help="The photos are aligned 112x112 crops.")]
Patience = Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long a peer may be silent.")]
Trusted = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--trust", metavar="FILE.pem", help="Speak TLS, and trust this certificate alone."),
]
Certificate = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE.pem", help="Speak TLS with this certificate."),
]
CertificateKey = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(metavar="FILE.pem", help="The private key of the certificate."),
]

HERE, DEALER = "127.0.0.1:7400", "127.0.0.1:7401"


@encrypted.command()
def keygen(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where keys are written.")] = Path(
        "keys"
    ),
) -> None:
    """Make the keys of a door, a server and a dealer."""
    from bauta.encrypted.keys import write_keys

    door, server, dealer = write_keys(output)
    show_facts([("door", door), ("server", server), ("dealer", dealer)])
    show_notes(
        [
            "take each to its own machine, and delete it here: door.key decrypts, dealer.key undoes comparisons.",
        ]
    )


@encrypted.command()
def serve(
    key: Annotated[list[Path], typer.Option("--key", metavar="FILE", help="server.key of a door. May be repeated.")],
    faces: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(help="Photos or folders, one face each, or one .npy file of embeddings.", show_default=False),
    ] = None,
    cloud: Annotated[bool, typer.Option("--cloud", help="Hold a gallery that the door enrols, encrypted.")] = False,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = HERE,
    dealer: DealerAt = DEALER,
    recognizer: Recognizer = "mobilefacenet",
    aligned: Aligned = False,
    fmr: Annotated[float, typer.Option(help="False match rate of a comparison: 1e-2, 1e-3 or 1e-4.")] = 1e-4,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(metavar="COSINE", help="Match from this cosine on, instead of the recogniser's."),
    ] = None,
    decisions: Annotated[int, typer.Option(min=1, help="Decisions that a door gets in an hour.")] = 100,
    in_all: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Decisions that a door gets until the server is started again."),
    ] = None,
    split: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Pieces of a template; chosen for the gallery by default."),
    ] = None,
    dimension: Annotated[int, typer.Option(min=2, help="Values of a template, with --cloud.")] = 512,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the gallery.")] = 1,
    ahead: Annotated[
        int, typer.Option(min=0, help="Searches for which masks are drawn while the server is idle, for each door.")
    ] = 8,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Serve also where most strangers would be told that somebody matches.")
    ] = False,
    patience: Patience = 60.0,
    certificate: Certificate = None,
    certificate_key: CertificateKey = None,
    trusted: Trusted = None,
) -> None:
    """Answer doors, until interrupted. The gallery is kept in memory alone."""
    from bauta.encrypted.budget import Budget
    from bauta.encrypted.cost import MEANINGLESS
    from bauta.encrypted.dealing import RemoteTapes
    from bauta.encrypted.encoded import EncodedGallery, PlainGallery, SealedGallery
    from bauta.encrypted.exchange import Listener, parse_address
    from bauta.encrypted.keys import ServerKey
    from bauta.encrypted.packing import Layout, choose_split
    from bauta.encrypted.quantisation import quantise
    from bauta.encrypted.server import Server
    from bauta.encrypted.workers import ShardedGallery
    from bauta.rates import fpir

    if cloud == bool(faces):
        raise UsageError("A database has faces, and a cloud has none.", hint="Give faces, or --cloud.")
    keys = [ServerKey.read(path) for path in key]
    cosine = _threshold(recognizer, fmr) if threshold is None else threshold
    away, secure = parse_address(dealer), _calling(trusted)
    with contextlib.ExitStack() as stack:
        gallery: EncodedGallery
        if cloud:
            gallery = SealedGallery(Layout(dimension, split or 1))
        else:
            templates = quantise(_embedded(faces or [], recognizer, aligned), what="A template")
            rate = fpir(len(templates), fmr) if threshold is None else 0.0
            if rate > MEANINGLESS and not any_size:
                raise UsageError(
                    f"Among {len(templates)} people, {rate:.0%} of strangers would be told that somebody matches.",
                    hint="Give a smaller --fmr or a --threshold, or --any-size.",
                )
            layout = Layout(templates.shape[1], split or choose_split(len(templates), templates.shape[1]))
            plain = stack.enter_context(ShardedGallery(layout, workers)) if workers > 1 else PlainGallery(layout)
            plain.add(templates)
            gallery = plain
        server = Server(
            gallery,
            keys,
            cosine,
            lambda one: RemoteTapes(away, one, secure, patience),
            budget=Budget(decisions=decisions, total=in_all),
            patience=patience,
            log=show_note,
            ahead=ahead,
        )
        threading.Thread(target=server.draw_ahead, daemon=True).start()
        listener = Listener(
            parse_address(listen), server.answer, _serving(certificate, certificate_key), patience=patience
        )
        _announce("server", listener.address, [("people", gallery.people), ("threshold", f"{cosine:.3f}")])
        try:
            listener.run()
        finally:
            listener.close()


@encrypted.command("dealer")
def deal(
    key: Annotated[list[Path], typer.Option("--key", metavar="FILE", help="dealer.key. May be repeated.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = DEALER,
    patience: Patience = 60.0,
    certificate: Certificate = None,
    certificate_key: CertificateKey = None,
) -> None:
    """Give door and server the randomness of their comparisons, until interrupted. Run by who runs neither."""
    from bauta.encrypted.dealing import DealerService
    from bauta.encrypted.exchange import Listener, parse_address
    from bauta.encrypted.keys import DealerKey

    service = DealerService([DealerKey.read(path) for path in key], patience=patience, log=show_note)
    listener = Listener(
        parse_address(listen), service.answer, _serving(certificate, certificate_key), patience=patience
    )
    _announce("dealer", listener.address, [])
    try:
        listener.run()
    finally:
        listener.close()


@encrypted.command()
def enrol(
    faces: Faces,
    key: KeyFile = Path("door.key"),
    server: ServerAt = HERE,
    recognizer: Recognizer = "mobilefacenet",
    aligned: Aligned = False,
    patience: Patience = 60.0,
    trusted: Trusted = None,
) -> None:
    """Enrol people in a cloud's gallery, encrypted. It keeps no names: note their places."""
    door_key = _door_key(key)
    embeddings = _embedded(faces, recognizer, aligned)
    with _door(door_key, server, DEALER, patience, trusted) as door:
        places = door.enrol(embeddings)
    names = [str(one) for one in places] if _is_array(faces) else _names(faces)
    show_table(("FACE", "PLACE"), [(name, str(place)) for name, place in zip(names, places, strict=True)])


@encrypted.command()
def query(
    faces: Faces,
    key: KeyFile = Path("door.key"),
    server: ServerAt = HERE,
    dealer: DealerAt = DEALER,
    mode: Annotated[str, typer.Option(help="exists, identify (the first match), or verify with --place.")] = "exists",
    place: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="Whose template is compared, with --mode verify."),
    ] = None,
    recognizer: Recognizer = "mobilefacenet",
    aligned: Aligned = False,
    patience: Patience = 60.0,
    trusted: Trusted = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Ask a server whether it knows faces."""
    if mode not in ("exists", "identify", "verify"):
        raise UsageError(f"There is no mode {mode!r}.", hint="Give exists, identify, or verify.")
    if (mode == "verify") != (place is not None):
        raise UsageError("The mode verify goes with a place, and no other mode does.", hint="Give both, or neither.")
    door_key = _door_key(key)
    embeddings = _embedded(faces, recognizer, aligned)
    names = [str(one) for one in range(len(embeddings))] if _is_array(faces) else _names(faces)
    with _door(door_key, server, dealer, patience, trusted) as door:
        found = door.ask(embeddings, mode, place=place or 0)  # type: ignore[arg-type]
    if as_json:
        answers = [{"face": n, "found": one.found, "place": one.place} for n, one in zip(names, found, strict=True)]
        print(json.dumps(answers, indent=2))
        return
    rows = [
        (name, "yes" if one.found else "no", "" if one.place is None else str(one.place))
        for name, one in zip(names, found, strict=True)
    ]
    show_table(("FACE", "KNOWN", "PLACE"), rows)


@encrypted.command()
def cost(
    people: Annotated[int, typer.Argument(help="In the gallery, up to 100,000,000.", show_default=False)],
    dimension: Annotated[int, typer.Option(min=2, max=1024, help="Values of a template.")] = 512,
    recognizer: Recognizer = "mobilefacenet",
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """What a decision costs, and whether it means anything among so many people."""
    from dataclasses import asdict

    from bauta.encrypted.cost import MEANINGLESS
    from bauta.encrypted.cost import cost as estimate
    from bauta.errors import NotCalibrated
    from bauta.rates import FMRS, fpir, largest_gallery

    found = estimate(people, dimension)
    rates = []
    for fmr in (*FMRS, 1e-5, 1e-6, 1e-7):
        try:
            limit = f"{_threshold(recognizer, fmr):.3f}"
        except NotCalibrated:
            limit = "not calibrated"
        rates.append((fmr, limit, fpir(people, fmr), largest_gallery(fmr, 0.01)))
    if as_json:
        keys = ("fmr", "threshold", "fpir", "people_at_fpir_0.01")
        print(json.dumps(asdict(found) | {"rates": [dict(zip(keys, row, strict=True)) for row in rates]}, indent=2))
        return
    show_facts(
        [
            ("people", found.people),
            ("split", found.layout.split),
            ("upload", f"{found.upload / 1e6:.1f} MB"),
            ("download", f"{found.download / 1e6:.1f} MB"),
            ("comparison", f"{found.comparison / 1e6:.1f} MB in {found.rounds} rounds"),
            ("from the dealer", f"{found.tape / 1e6:.1f} MB"),
            ("memory", f"{found.memory / 1e9:.2f} GB"),
            ("encoding, once", f"about {found.encode_seconds:.1f} s on one core"),
            ("a decision", f"about {found.seconds:.1f} s on one core, and the network"),
        ]
    )
    print()
    show_table(
        ("FMR", "COSINE", "STRANGERS TOLD YES", "PEOPLE FOR 1 %"),
        [(f"{fmr:g}", limit, f"{rate:.2%}", f"{most:,}") for fmr, limit, rate, most in rates],
    )
    known = [rate for _, limit, rate, _ in rates if limit != "not calibrated"]
    if not known or min(known) > MEANINGLESS:
        print(f"\nAmong {people:,} people a yes of {recognizer} means nothing at any threshold that is known of it.")


def _announce(what: str, address: tuple[str, int], facts: Sequence[tuple[str, object]]) -> None:
    show_facts([(what, f"{address[0]}:{address[1]}"), *facts])
    import sys

    sys.stdout.flush()  # who started it in the background waits for this


def _threshold(recognizer: str, fmr: float) -> float:
    from bauta.recognizers import calibration, find_card

    return calibration.threshold(find_card(recognizer), fmr).cosine


def _door_key(path: Path) -> DoorKey:
    from bauta.encrypted.keys import DoorKey

    return DoorKey.read(path)


def _door(key: DoorKey, server: str, dealer: str, patience: float, trusted: Path | None) -> Door:
    from bauta.encrypted.dealing import RemoteTapes
    from bauta.encrypted.door import Door
    from bauta.encrypted.exchange import parse_address

    secure = _calling(trusted)
    tapes: RemoteTapes = RemoteTapes(parse_address(dealer), key, secure, patience)
    return Door.connected(key, parse_address(server), tapes, tls=secure, patience=patience)


def _calling(trusted: Path | None) -> ssl.SSLContext | None:
    from bauta.encrypted.exchange import calling_tls

    return None if trusted is None else calling_tls(trusted)


def _serving(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    from bauta.encrypted.exchange import serving_tls

    if (certificate is None) != (key is None):
        raise UsageError("A certificate needs its key.", hint="Give --certificate and --certificate-key.")
    return None if certificate is None or key is None else serving_tls(certificate, key)


def _is_array(paths: Sequence[Path]) -> bool:
    return len(paths) == 1 and paths[0].suffix == ".npy"


def _names(paths: Sequence[Path]) -> list[str]:
    from bauta.gallery.enrol import names_of_photos
    from bauta.photo.files import find_photos

    return list(names_of_photos(find_photos(list(paths)).photos))


def _embedded(paths: Sequence[Path], recognizer: str, aligned: bool) -> Any:
    """Embeddings of unit norm, (N, D), of the largest face of each photo, or from a file."""
    import numpy as np

    if _is_array(paths):
        try:
            return np.load(paths[0], allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UsageError(f"{paths[0]} cannot be read.", hint="Give (N, D) numbers, of `numpy.save`.") from error
    from dataclasses import replace

    from bauta.faces.crops import retemplate_pixels
    from bauta.gallery.enrol import read_faces
    from bauta.photo.files import find_photos
    from bauta.recognizers import find_card, load_judge
    from bauta.recognizers.cards import ROLES

    found = find_photos(list(paths))
    for problem in found.problems:
        raise problem
    judge = load_judge(replace(find_card(recognizer), roles=ROLES))
    crops = read_faces(found.photos, aligned=aligned).permute(0, 2, 3, 1).numpy()
    return np.concatenate(
        [judge.embed(retemplate_pixels(crops[at : at + 32], judge.card.template)) for at in range(0, len(crops), 32)]
    )
