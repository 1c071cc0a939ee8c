"""`bauta gallery` and `bauta serve`, and which photos they take."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from bauta.cli.run import run
from bauta.errors import NoFaceFound, NotCalibrated, OtherMaker, PhotoError, PoorPhoto, SubjectUnknown, UsageError
from bauta.gallery.index import Index
from bauta.gallery.quality import Quality, read_face
from bauta.gallery.service import FaceService, require_protecting
from bauta.gallery.store import Store
from bauta.recognizers.cards import format_card
from bauta.templates.references import IdentityFeature
from conftest import faces, fitted, toy_surrogate
from gallery_builders import key_of
from recognizer_builders import card_of, linear_model
from store_builders import new_service, photo

Capture = pytest.CaptureFixture[str]


# Photos


def as_png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    return Image.fromarray(data.astronaut()).crop((100, 0, 356, 256))


def test_a_good_photo_is_taken(portrait: Image.Image) -> None:
    face = read_face(as_png(portrait), Quality())
    assert face.shape == (1, 3, 112, 112)
    assert 0 <= face.min() < face.max() <= 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda one: one.filter(ImageFilter.GaussianBlur(6)), "blurred"),
        (lambda one: one.resize((90, 90)), "small"),
        (lambda one: _beside(one, one), "more than one"),
    ],
)
def test_a_poor_photo_is_told_and_nothing_stored(
    tmp_path: Path, portrait: Image.Image, spoil: object, words: str
) -> None:
    service = new_service(tmp_path, aligned=False)
    with pytest.raises(PoorPhoto, match=words):
        service.enrol("acme", "ann", as_png(spoil(portrait)), actor="test")  # type: ignore[operator]
    with pytest.raises(NoFaceFound):
        service.enrol("acme", "ann", as_png(Image.new("RGB", (200, 200), "grey")), actor="test")
    with pytest.raises(PhotoError):
        service.enrol("acme", "ann", b"no photo", actor="test")
    assert service.store.stats()["subjects"] == 0
    assert service.store.revision() == (0, 0)
    service.store.close()


def _beside(*pictures: Image.Image) -> Image.Image:
    made = Image.new("RGB", (sum(one.width for one in pictures), pictures[0].height))
    for number, one in enumerate(pictures):
        made.paste(one, (number * one.width, 0))
    return made


# The service


def test_what_protects_nothing_is_not_stored_unless_told_so() -> None:
    plain = IdentityFeature(toy_surrogate())
    with pytest.raises(UsageError, match="protects nothing"):
        require_protecting(plain)
    require_protecting(plain, plain=True)


def test_another_protector_or_recogniser_is_named(tmp_path: Path) -> None:
    new_service(tmp_path).store.close()
    with pytest.raises(OtherMaker, match="protector"):
        new_service(tmp_path, fitted("blurred-image", faces(4, 9)))
    with pytest.raises(OtherMaker, match="recognizer"):
        new_service(tmp_path, fitted("identity-feature", faces(4, 9), toy_surrogate(3, "other")))
    with pytest.raises(NotCalibrated):
        new_service(tmp_path, threshold=None)


def test_a_store_is_loaded_as_it_was_and_exported(tmp_path: Path) -> None:
    service = new_service(tmp_path)
    for seed, name in enumerate(["ann", "bob", "eve"]):
        service.enrol("acme", name, photo(seed), actor="test")
    service.enrol("other", "ann", photo(7), actor="test")
    exported = service.export("acme")
    assert sorted(exported.names) == ["ann", "bob", "eve"]
    service.erase("acme", "bob", actor="test")
    service.store.close()
    again = new_service(tmp_path)
    assert again.search("acme", photo(0), actor="test", force=True).subject == "ann"
    assert again.search("acme", photo(1), actor="test", force=True).subject is None
    assert again.search("other", photo(7), actor="test").subject == "ann"
    (tmp_path / "copy").mkdir()
    copy = new_service(tmp_path / "copy")
    assert copy.take("acme", exported, actor="test") == 3
    assert copy.match("acme", "bob", photo(1), actor="test")
    assert not copy.match("acme", "bob", photo(2), actor="test")
    with pytest.raises(SubjectUnknown):
        copy.export("nobody")
    for one in (again, copy):
        assert one.store.verify() == []
        one.store.close()


def test_photos_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = new_service(tmp_path)
    opened: list[str] = []

    def watch(event: str, given: tuple[object, ...]) -> None:
        if event == "open" and watching and given[1] not in (None, "r", "rb"):
            opened.append(str(given[0]))

    watching = True
    sys.addaudithook(watch)
    service.enrol("acme", "ann", photo(1), actor="test")
    assert service.match("acme", "ann", photo(1), actor="test")
    watching = False
    assert opened == []
    service.store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert photo(1)[100:132] not in content


def test_revoked_people_go_when_their_time_is_over(tmp_path: Path) -> None:
    service = new_service(tmp_path)
    service.enrol("acme", "ann", photo(1), actor="test")
    service.revoke("acme", "ann", 0, actor="test")
    assert service.purge() == 1
    assert service.store.stats()["subjects"] == 0
    assert b"ann" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    service.store.close()


def test_the_index_finds_what_numpy_finds() -> None:
    chance, index = np.random.default_rng(0), Index(8)
    vectors = chance.standard_normal((300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [bytes([*divmod(number, 256)]) for number in range(300)]
    there: dict[int, int] = {}
    for step in range(600):
        number = int(chance.integers(300))
        if number in there:
            index.remove([ids[number]])
            del there[number]
        else:
            index.add("acme", [ids[number]], [ids[number % 40]], vectors[number : number + 1])
            there[number] = number % 40
        if step % 20 == 0 and there:
            probe = vectors[int(chance.integers(300))]
            numbers = sorted(there)
            cosines = vectors[numbers] @ probe
            hit = index.search("acme", probe)
            assert hit is not None
            assert hit.cosine == pytest.approx(float(cosines.max()), abs=1e-6)
            assert hit.uid == ids[numbers[int(cosines.argmax())] % 40]
            own = [number for number in numbers if number % 40 == 7]
            best = index.match("acme", ids[7], probe)
            assert best == (None if not own else pytest.approx(float((vectors[own] @ probe).max()), abs=1e-6))
            other = index.search("acme", probe, but=hit.uid)
            assert other is None or other.uid != hit.uid
    assert index.ids() == {ids[number] for number in there}
    assert index.search("other", vectors[0]) is None
    assert len(index) == index.count("acme") == len(there)


# Commands


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands run: a recogniser called mine, a protector of it, aligned photos of four people, a key."""
    home = tmp_path / "home" / "recognizers" / "mine"
    home.mkdir(parents=True)
    (home / "card.toml").write_text(format_card(card_of(home, linear_model())))
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        folder = tmp_path / "people" / f"Person_{number}"
        folder.mkdir(parents=True)
        (folder / f"{number}.png").write_bytes(photo(number))
    fit = ["templates", "fit", "people", "--recognizer", "mine", "--method", "identity-feature", "-o", "made"]
    assert run(fit) == 0
    assert run(["key", "-o", "deployment.key"]) == 0
    return tmp_path


KEY = ["--key", "deployment.key"]
UNPROTECTED = "--store-faces-unprotected"
OF = [*KEY, "--protector", "made", "--threshold", "0.9999", "--aligned"]
PHOTOS = [f"people/Person_{number}/{number}.png" for number in range(4)]


def said(capsys: Capture, *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert run(["gallery", *arguments]) == code
    found = capsys.readouterr()
    return found.out if code == 0 else found.err


def test_people_from_the_first_command_to_the_last(place: Path, capsys: Capture) -> None:
    assert "protects nothing" in said(capsys, "init", "g", *KEY, "--protector", "made", code=2)
    assert "keys.db" in said(capsys, "init", "g", *KEY, "--protector", "made", UNPROTECTED)
    assert "exists already" in said(capsys, "init", "g", *KEY, "--protector", "made", UNPROTECTED, code=5)
    said(capsys, "enrol", "g", "ann", PHOTOS[0], *OF)
    said(capsys, "enrol", "g", "bob", PHOTOS[1], *OF)
    assert "another name" in said(capsys, "enrol", "g", "eve", PHOTOS[0], *OF, code=9)
    assert said(capsys, "match", "g", "ann", PHOTOS[0], *OF) == "yes\n"
    assert said(capsys, "match", "g", "ann", PHOTOS[1], *OF) == "no\n"
    assert json.loads(said(capsys, "match", "g", "ann", PHOTOS[1], *OF, "--json")) == {"match": False}
    assert "Nobody of that name" in said(capsys, "match", "g", "eve", PHOTOS[1], *OF, code=9)
    assert "unknown share" in said(capsys, "search", "g", PHOTOS[1], *OF, code=9)
    assert said(capsys, "search", "g", PHOTOS[1], *OF, "--force") == "bob\n"
    assert said(capsys, "search", "g", PHOTOS[3], *OF, "--force") == "nobody\n"
    assert said(capsys, "revoke", "g", "ann", *KEY).split() == ["revoked", "1"]
    assert said(capsys, "match", "g", "ann", PHOTOS[0], *OF) == "no\n"
    assert said(capsys, "restore", "g", "ann", *KEY).split() == ["restored", "1"]
    assert said(capsys, "renew", "g", "ann", *KEY).split() == ["renewed", "1"]
    assert said(capsys, "match", "g", "ann", PHOTOS[0], *OF) == "yes\n"
    assert "erased" in said(capsys, "erase", "g", "ann", *KEY)
    assert json.loads(said(capsys, "stats", "g", *KEY, "--json"))["subjects"] == 1
    assert "identity-feature" in said(capsys, "stats", "g", *KEY)
    assert "whole" in said(capsys, "verify", "g", *KEY)
    exporting = [*KEY, "--protector", "made", "--threshold", "0.9999"]
    said(capsys, "export", "g", "-o", "all.bauta", *exporting)
    said(capsys, "import", "g", "all.bauta", *exporting, "--tenant", "copy")
    assert said(capsys, "search", "g", PHOTOS[1], *OF, "--tenant", "copy", "--force") == "bob\n"
    assert run(["key", "-o", "new.key"]) == 0
    said(capsys, "rotate", "g", *KEY, "--new-key", "new.key")
    assert "does not open" in said(capsys, "stats", "g", *KEY, code=9)
    assert "whole" in said(capsys, "verify", "g", "--key", "new.key")


def test_keys_of_clients_are_made_listed_and_ended(place: Path, capsys: Capture) -> None:
    said(capsys, "init", "g", *KEY, "--protector", "made", UNPROTECTED, "--keys", "elsewhere.db")
    keys = [*KEY, "--keys", "elsewhere.db"]
    secret = said(capsys, "key", "g", "match", "read", *keys).strip()
    ident = secret.split("_")[1]
    assert ident in said(capsys, "keys", "g", *keys)
    assert secret not in said(capsys, "keys", "g", *keys)
    said(capsys, "unkey", "g", ident, *keys)
    assert ident not in said(capsys, "keys", "g", *keys)
    assert "There is no key" in said(capsys, "unkey", "g", ident, *keys, code=2)
    assert "cannot be made" in said(capsys, "key", "g", "everything", *keys, code=2)
    assert "not there" in said(capsys, "stats", "g", *KEY, code=9)
    assert "keeps its keys elsewhere" in said(capsys, "stats", "postgresql:///x", *KEY, code=2)


def test_a_gallery_that_was_edited_is_told(place: Path, capsys: Capture) -> None:
    said(capsys, "init", "g", *KEY, "--protector", "made", UNPROTECTED)
    said(capsys, "enrol", "g", "ann", PHOTOS[0], *OF)
    import sqlite3

    connection = sqlite3.connect("g/gallery.db")
    connection.execute("UPDATE records SET created = created, sealed = zeroblob(length(sealed))")
    connection.execute("UPDATE audit SET outcome = 'x'")
    connection.commit()
    connection.close()
    assert "2 things are wrong" in said(capsys, "verify", "g", *KEY, code=9)
    assert "changed" in said(capsys, "match", "g", "ann", PHOTOS[0], *OF, code=9)


@pytest.mark.parametrize("searching", [(), ("--search", "faiss", "--shards", "2")])
def test_serve_makes_a_gallery_answers_and_ends(place: Path, searching: tuple[str, ...]) -> None:
    (place / "g").mkdir()
    assert run(["gallery", "init", "g", *KEY, "--protector", "made", UNPROTECTED]) == 0
    made = subprocess.run(
        [sys.executable, "-m", "bauta", "gallery", "key", "g", "enrol", "match", "erase", *KEY],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    key = made.stdout.strip()
    process = subprocess.Popen(
        [sys.executable, "-m", "bauta", "serve", "g", *OF, "--port", "0", *searching],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Listening on http://127.0.0.1:"), line
        with httpx.Client(base_url=line.split()[2], headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            until = time.monotonic() + 60
            while client.get("/health").status_code == 503 and time.monotonic() < until:
                time.sleep(0.1)
            content, headers = Path(PHOTOS[0]).read_bytes(), {"Content-Type": "image/png"}
            at = "/v1/subjects/ann"
            assert client.post(f"{at}/records", content=content, headers=headers).status_code == 201
            assert client.post(f"{at}/match", content=content, headers=headers).json() == {"match": True}
            assert client.get(at).status_code == 403
            assert client.delete(at).json()["state"] == "erased"
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert key not in out + err
    assert "ann" not in out + err


def test_serve_refuses_what_would_be_heard(place: Path, capsys: Capture) -> None:
    assert run(["serve", "g", *KEY, "--host", "0.0.0.0"]) == 2
    assert "in the clear" in capsys.readouterr().err
    assert run(["serve", "g", *KEY, "--certificate", "x.pem"]) == 2
    assert run(["serve", "g", *KEY, "--search", "ivf"]) == 2
    assert "no such search" in capsys.readouterr().err
    assert not (place / "g").exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions")
def test_a_key_that_others_can_read_is_refused(place: Path, capsys: Capture) -> None:
    said(capsys, "init", "g", *KEY, "--protector", "made", UNPROTECTED)
    Path("deployment.key").chmod(0o644)
    assert "open to others" in said(capsys, "stats", "g", *KEY, code=2)


def test_templates_that_are_no_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bauta.errors import NumericalFailure

    service = new_service(tmp_path)
    monkeypatch.setattr(service.protector, "probe", lambda image: torch.full((1, 32), torch.nan))
    with pytest.raises(NumericalFailure):
        service.enrol("acme", "ann", photo(1), actor="test")
    assert service.store.stats()["subjects"] == 0
    assert isinstance(service, FaceService)
    service.store.close()
    Store.open(tmp_path / "gallery.db", tmp_path / "keys.db", key_of()).close()
