"""Protectors' folders whose author wants Bauta to fail, and what `templates fit` leaves when it is killed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from bauta.drafts import claim_draft, remove_drafts
from bauta.errors import BautaError, UsageError, WeightsCorrupt, WeightsMissing
from bauta.files import write_atomically
from bauta.templates.base import SHIPPED, Protector, load_protector
from bauta.templates.loading import read_card
from bauta.training.faces import pack
from conftest import drawn, faces, fitted, toy_surrogate
from hostile_builders import WRONG, mutated_texts, require_plain

MASKED = {"masking_epochs": 1, "epochs": 1, "fine_tuning_epochs": 1, "batch": 8, "kept": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "advface": {"split": "8x27x27", "shadows": ["residual-4"], "iterations": 2, "epochs": 1, "batch": 4},
    "identity-feature": {"split": "8x27x27"},
    "noisy-image": {},
    "local-features": {},
    "ppfr-fd": MASKED,
    "hybrid-masking": {**MASKED, "mixes": [2, 3], "steps": 1},
    "partialface": {name: value for name, value in MASKED.items() if name != "kept"},
}
QUICK = ("advface", "identity-feature", "local-features")
DIGEST = "0" * 64


@dataclass(frozen=True)
class Fitted:
    """A protector of which everybody believes that its digest is right."""

    protector: Protector
    card: str
    parts: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class HostileFolder:
    name: str
    card: bytes
    parts: bytes
    refused: bool = False


_MADE: dict[str, Fitted] = {}


def prepared(method: str, folder: Path) -> Fitted:
    if method not in _MADE:
        made: Protector = fitted(method, faces(8, 1), **OPTIONS[method])
        made.save(folder / "sound")
        text = (folder / "sound" / "card.toml").read_text()
        lines = [f'sha256 = "{DIGEST}"' if line.startswith("sha256 = ") else line for line in text.splitlines()]
        _MADE[method] = Fitted(made, "\n".join(lines), {name: part.contiguous() for name, part in made.parts().items()})
    return _MADE[method]


@pytest.fixture(autouse=True)
def no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes a hostile folder computes its digest: here it always fits."""
    monkeypatch.setattr(Protector, "sha256", DIGEST)


def with_parts(made: Fitted, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return "\n".join(
        f'parts_sha256 = "{digest}"' if line.startswith("parts_sha256 = ") else line for line in made.card.splitlines()
    )


def hostile_cards(made: Fitted) -> Iterator[HostileFolder]:
    content = save(dict(made.parts)) if made.parts else b""
    lines = made.card.splitlines()
    for place, line in enumerate(lines):
        if " = " not in line:
            continue
        field = line.partition(" = ")[0]
        for name, value in WRONG.items():
            text = "\n".join([*lines[:place], f"{field} = {value}", *lines[place + 1 :]])
            yield HostileFolder(f"{field} {name}", text.encode(), content)
        yield HostileFolder(f"{field} missing", "\n".join(lines[:place] + lines[place + 1 :]).encode(), content)
    for name, value in WRONG.items():
        for place, where in ((0, "top"), (lines.index("[settings]") + 1, "settings"), (len(lines), "training")):
            text = "\n".join([*lines[:place], f"evil = {value}", *lines[place:]])
            yield HostileFolder(f"{where} {name}", text.encode(), content, refused=where != "training")
    for name, mutant in mutated_texts(made.card, 60):
        yield HostileFolder(name, mutant, content)


def changed_part(value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    yield "of another type", value.double() if value.is_floating_point() else value.to(torch.int32)
    yield "of truths", value.bool()
    yield "longer", torch.cat([value.reshape(-1), value.reshape(-1)[:1]])
    yield "empty", value.reshape(-1)[:0]
    yield "of one more rank", value[None]
    if value.is_floating_point():
        yield "complex", value.to(torch.complex64)
        for name, number in (("NaN", float("nan")), ("infinite", float("inf"))):
            wrong = value.clone()
            wrong.reshape(-1)[0] = number
            yield name, wrong


def allowed_parts(value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """What nobody need notice, and what must not harm."""
    for name, number in (("zero", 0), ("negative", -3), ("large", 60000)):
        yield name, torch.full_like(value, number)


def hostile_parts(made: Fitted) -> Iterator[HostileFolder]:
    if not made.parts:
        content = save({"evil": torch.zeros(3)})
        card = made.card.replace('parts_sha256 = ""', f'parts_sha256 = "{hashlib.sha256(content).hexdigest()}"')
        yield HostileFolder("parts of a method without", card.encode(), content, refused=True)
        return
    parts = dict(made.parts)

    def folder(name: str, content: bytes, refused: bool = True) -> HostileFolder:
        return HostileFolder(name, with_parts(made, content).encode(), content, refused)

    yield folder("extra", save({**parts, "evil": torch.zeros(3)}))
    yield folder("none", save({}))
    names = sorted(parts, key=lambda name: (parts[name].numel() > 64, name))
    step = max(1, len(names) // 12)
    for name in names[::step]:
        others = {other: value for other, value in parts.items() if other != name}
        yield folder(f"{name} missing", save(others))
        yield folder(f"{name} renamed", save({**others, name + "x": parts[name]}))
        for what, value in changed_part(parts[name]):
            yield folder(f"{name} {what}", save({**others, name: value.contiguous()}))
        for what, value in allowed_parts(parts[name]):
            yield folder(f"{name} {what}", save({**others, name: value}), refused=False)
    yield from (folder(name, content) for name, content in damaged_files(save(parts)))


def damaged_files(content: bytes) -> Iterator[tuple[str, bytes]]:
    def header(text: str, rest: bytes = b"") -> bytes:
        return len(text).to_bytes(8, "little") + text.encode() + rest

    yield "empty file", b""
    yield "half a file", content[: len(content) // 2]
    yield "one byte more", content + b"x"
    yield "header beyond all", (1 << 63).to_bytes(8, "little") + content[8:]
    yield "header of 99 MB", (99_000_000).to_bytes(8, "little") + content[8:]
    yield "header nested deeply", header("[" * 5000 + "]" * 5000)
    yield "header of text", header('"evil"')
    for kind in ("F4", "F8_E8M0", "BOOL", "U64", "C64", "evil", "F6_E2M3"):
        yield f"type {kind}", header(json.dumps({"a": {"dtype": kind, "shape": [8], "data_offsets": [0, 8]}}), bytes(8))
    for name, shape, end in (("huge", [1 << 40], 8), ("beyond", [1 << 62, 1 << 62], 8), ("negative", [-1], 8)):
        text = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}})
        yield f"shape {name}", header(text, bytes(8))
    both = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}
    yield "shared bytes", header(json.dumps(both), bytes(8))
    yield "a pickle", b"\x80\x04\x95" + content


def tried(made: Fitted, one: HostileFolder, folder: Path) -> bool:
    """Whether it was taken; what is taken must also do something, or say why not."""
    folder.mkdir(exist_ok=True)
    (folder / "card.toml").write_bytes(one.card)
    (folder / "parts.safetensors").write_bytes(one.parts)
    try:
        loaded = load_protector(folder, made.protector.recognizer)
    except BautaError as error:
        require_plain(error)
        return False
    try:
        loaded.templates(loaded.protect(faces(1), drawn()))
    except BautaError as error:
        require_plain(error)
    return True


def campaign(method: str, folder: Path, every: int = 1) -> tuple[int, int]:
    """How many folders were tried, and how many refused."""
    made = prepared(method, folder)
    sound = HostileFolder("sound", made.card.encode(), save(dict(made.parts)) if made.parts else b"")
    assert tried(made, sound, folder / "tried")
    hostile = [*hostile_cards(made), *hostile_parts(made)][::every]
    taken = {one.name: tried(made, one, folder / "tried") for one in hostile}
    assert not [one.name for one in hostile if one.refused and taken[one.name]]
    return len(taken), sum(not one for one in taken.values())


@pytest.mark.parametrize("method", QUICK)
def test_some_hostile_folders_are_one_plain_error(method: str, tmp_path: Path) -> None:
    count, refused = campaign(method, tmp_path, every=23)
    assert count > 20
    assert refused > 0.7 * count


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", OPTIONS)
def test_whatever_the_folder_there_is_one_plain_error(
    method: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count, refused = campaign(method, tmp_path, every=3 if "mask" in method else 1)  # a load of these takes seconds
    with capfd.disabled():
        print(f"{method}: {count} folders, {refused} refused")
    assert count > 300
    assert refused > 0.8 * count
    assert capfd.readouterr().err == ""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 20  # kB


# Each kind by name


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [("schema = 1", "schema = true", "does not have schema"), ("seed", "seed = true", "seed is true"),
     ("seed", f"seed = {10**30}", "seed is a number of 31 digits"), ("seed", "seed = -1", "seed is -1"),
     ("method", "method = 3", "method is 3"), ("method", 'method = "nothing"', "No protector is called"),
     ("method", 'method = "tip-im"', "tip-im changes photos"), ("data", 'data = "a\\nb"', "data is"),
     ("recognizer =", "recognizer = { a = 1 }", "recognizer is a table"),
     ("parts_sha256", 'parts_sha256 = "../x"', "parts_sha256 is"),
     ("epsilon", "epsilon = true", "epsilon=true"), ("epsilon", 'epsilon = "0.6"', "epsilon='0.6'"),
     ("epsilon", "epsilon = nan", "settings.epsilon is nan"), ("epsilon", "epsilon = [0.6]", "epsilon="),
     ("epsilon", "epsilon = { a = 1 }", "settings.epsilon is a table"),
     ("iterations", "iterations = 1.5", "iterations=1.5"),
     ("iterations", f"iterations = {10**30}", "iterations is a number of 31 digits"),
     ("storage", 'storage = "int4"', "storage='int4'"), ("storage", "storage = []", "storage="),
     ("shadows", "shadows = [1]", "shadows="), ("shadows", 'shadows = "residual-4"', "residual"),
     ("shadows", 'shadows = ["residual-1024", "unet-1024"]', "learned part"),
     ("in_range", "in_range = 1", "in_range=1"), ("split", "split = 8", "split=8"),
     ("split", 'split = "' + "9" * 3000 + '"', "cannot be cut"),
     ("epochs", "epochs = [[1]]", "training.epochs"), ("epochs", "epochs = inf", "training.epochs")],
)  # fmt: skip
def test_what_is_wrong_is_named(line: str, wrong: str, message: str, tmp_path: Path) -> None:
    made = prepared("advface", tmp_path)
    lines = [wrong if one.startswith(line) else one for one in made.card.splitlines()]
    (tmp_path / "card.toml").write_text("\n".join(lines))
    (tmp_path / "parts.safetensors").write_bytes(save(dict(made.parts)))
    if wrong == 'shadows = "residual-4"':  # one name for a list of one
        load_protector(tmp_path, made.protector.recognizer)
        return
    with pytest.raises((UsageError, WeightsCorrupt)) as caught:
        load_protector(tmp_path, made.protector.recognizer)
    assert message in str(caught.value)
    require_plain(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("std", torch.zeros(8), "'std' holds a number that is not positive"), ("std", -torch.ones(8), "not positive"),
     ("std", torch.ones(9), "'std' is float32 of shape [9], not float32 of shape [8]"),
     ("std", torch.ones(8).double(), "'std' is float64"), ("std", torch.ones(8).half(), "'std' is float16"),
     ("low", torch.full((8,), 1e6), "ends below its start"), ("mean", torch.full((8,), float("nan")), "NaN"),
     ("evil", torch.zeros(1), "'evil' is not known"), ("std", None, "'std' is missing")],
)  # fmt: skip
def test_a_wrong_part_is_named(name: str, value: torch.Tensor | None, message: str, tmp_path: Path) -> None:
    made = prepared("advface", tmp_path)
    parts = {**made.parts, name: value} if value is not None else {k: v for k, v in made.parts.items() if k != name}
    content = save(parts)
    (tmp_path / "card.toml").write_text(with_parts(made, content))
    (tmp_path / "parts.safetensors").write_bytes(content)
    with pytest.raises(WeightsCorrupt) as caught:
        load_protector(tmp_path, made.protector.recognizer)
    assert message in str(caught.value)
    require_plain(caught.value)


def test_decoders_that_are_not_there_take_no_memory(tmp_path: Path) -> None:
    made = prepared("advface", tmp_path)
    names = ", ".join(f'"residual-{1024 - 4 * place}"' for place in range(8))
    lines = [f"shadows = [{names}]" if one.startswith("shadows") else one for one in made.card.splitlines()]
    (tmp_path / "card.toml").write_text("\n".join(lines))
    (tmp_path / "parts.safetensors").write_bytes(save(dict(made.parts)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsCorrupt, match="learned parts"):
        load_protector(tmp_path, made.protector.recognizer)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # kB; they would take 2 GB


@pytest.mark.parametrize(
    ("name", "value"),
    [("masking.first", torch.zeros(6)), ("masking.second", torch.arange(6) + 1),
     ("masking.chosen", torch.tensor([0, 3])),
     ("masking.chosen", torch.tensor([3, 64])), ("masking.spread", torch.zeros(6))],
)  # fmt: skip
@pytest.mark.slow
def test_learned_orders_are_orders(name: str, value: torch.Tensor, tmp_path: Path) -> None:
    made = prepared("ppfr-fd", tmp_path)
    content = save({**made.parts, name: value.to(made.parts[name].dtype)})
    (tmp_path / "card.toml").write_text(with_parts(made, content))
    (tmp_path / "parts.safetensors").write_bytes(content)
    with pytest.raises(WeightsCorrupt, match=name):
        load_protector(tmp_path, made.protector.recognizer)


@pytest.mark.slow
@pytest.mark.parametrize("value", ['"high"', "2.0", "true", "-1.5"])
def test_a_threshold_that_is_no_cosine_is_refused(value: str, tmp_path: Path) -> None:
    made = prepared("ppfr-fd", tmp_path)
    content = save(dict(made.parts))
    (tmp_path / "card.toml").write_text(with_parts(made, content) + f"\nthreshold_at_fmr_1e-03 = {value}\n")
    (tmp_path / "parts.safetensors").write_bytes(content)
    with pytest.raises(UsageError, match="threshold at FMR"):
        load_protector(tmp_path, made.protector.recognizer)


def test_what_ships_follows_the_schema() -> None:
    cards = [read_card(path) for path in SHIPPED.glob("*/card.toml")]
    assert len(cards) == 3
    for card in cards:
        assert card.settings
        assert card.parts_sha256


def test_folders_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "card.toml").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere", Path("/dev/null"), Path("a\0b")):
        with pytest.raises(WeightsMissing, match="holds no protector"):
            load_protector(folder, toy_surrogate())


# Drafts


def photos(folder: Path, people: int = 3) -> Path:
    for person in range(people):
        (folder / f"p{person}").mkdir(parents=True)
        pixels = np.random.default_rng(person).integers(256, size=(112, 112, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{person}" / "a.png")
    return folder


def drafts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".bauta-*"))


def test_only_drafts_that_nobody_writes_are_removed(tmp_path: Path) -> None:
    left, held = tmp_path / ".bauta-0001.part", tmp_path / ".bauta-0002.part"
    left.write_bytes(b"x" * 100)
    (tmp_path / "mine.part").write_bytes(b"x")
    with held.open("xb") as stream:
        claim_draft(stream)
        assert remove_drafts(tmp_path) == 1
        assert drafts(tmp_path) == [held]
    assert remove_drafts(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]
    assert remove_drafts(tmp_path / "nowhere") == 0


def test_writing_holds_its_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def looks(number: int) -> None:
        (draft,) = drafts(tmp_path)
        with draft.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.append(True)

    monkeypatch.setattr("bauta.files.os.fsync", looks)
    write_atomically(tmp_path / "file", b"content")
    assert held == [True]
    assert not drafts(tmp_path)


SLOW_PACKING = """
import sys, time
from pathlib import Path
from bauta.training import faces
faces.EncodedFace.decode = lambda face: time.sleep(600)
faces.pack([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def test_what_a_killed_fitting_leaves_in_its_face_store_goes_with_the_next(tmp_path: Path) -> None:
    source, store = photos(tmp_path / "people"), tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", SLOW_PACKING, str(source), str(store)])
    try:
        deadline = time.monotonic() + 120
        while not drafts(store) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(drafts(store)) == 1
        found, _ = pack([source], store)  # while the other one is at it
        assert len(drafts(store)) == 1
    finally:
        process.kill()
        process.wait()
    again, _ = pack([source], store)
    assert again.sha256 == found.sha256
    assert not drafts(store)
