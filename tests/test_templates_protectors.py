"""Representations, their bytes, and what every protector keeps."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bauta.errors import NumericalFailure, OutputExists, UsageError, WeightsCorrupt, WeightsMissing
from bauta.registry import list_methods, load_method
from bauta.templates.base import SHIPPED, Protector, load_protector, shipped_protectors, unknown_generator
from bauta.templates.representation import Representation, RowFormat, check_value, key_fingerprint
from conftest import drawn, fitted, toy_surrogate

KEY = bytes(range(32))
OPTIONS: dict[str, dict[str, Any]] = {
    "advface": {"split": "8x27x27", "shadows": ["residual-4"], "iterations": 2, "epochs": 1, "batch": 4},
    "identity-feature": {"split": "8x27x27"},
}
MASKED = {"masking_epochs": 1, "epochs": 1, "fine_tuning_epochs": 1, "batch": 8}
OPTIONS |= dict.fromkeys(("unprotected", "gaussian-noise", "mixup", "dctdp", "partialface"), MASKED)
OPTIONS |= {
    "minusface": {**MASKED, "width": 4},
    "ppfr-fd": {**MASKED, "kept": 2},
    "frequency-mixup": {**MASKED, "kept": 2, "mixes": [2]},
    "hybrid-masking": {**MASKED, "kept": 2, "mixes": [2, 3]},
}
OPTIONS |= {
    "peep": {"count": 7},
    "dct-laplace": {"count": 20},
    "sliced-frequencies": {"count": 20},
    "dp-pixels": {"side": 2},
}
SIZES = {"peep": 7, "dct-laplace": 20, "sliced-frequencies": 20, "dp-pixels": 12}
BYTES = {"tensor": torch.zeros(2, 3, dtype=torch.uint8)}
METHODS = [card.name for card in list_methods(kind="protector")]


def faces(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 14, 14, generator=generator)
    return torch.nn.functional.interpolate(coarse, (112, 112), mode="bilinear").clamp(0, 1)


@pytest.fixture(scope="module", params=METHODS)
def protector(request: pytest.FixtureRequest) -> Protector:
    return make(request.param)


def make(name: str, seed: int = 0) -> Protector:
    made: Protector = fitted(name, faces(8, 1), toy_surrogate(seed), **OPTIONS.get(name, {}))
    return made


def representation(**changes: Any) -> Representation:
    values: dict[str, Any] = {
        "tensor": torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2),
        "kind": "feature",
        "recognizer": "toy",
        "recognizer_sha256": "a" * 64,
        "protector": "advface",
        "protector_sha256": "b" * 64,
    }
    return Representation(**{**values, **changes})


# Every protector


def test_what_is_stored_names_its_maker_and_gives_unit_templates(protector: Protector) -> None:
    stored = protector.protect(faces(), drawn())
    assert (stored.protector, stored.protector_sha256) == (protector.name, protector.sha256)
    assert stored.recognizer_sha256 == protector.recognizer.card.sha256
    assert stored.kind == protector.kind
    templates = protector.templates(stored)
    assert templates.shape == (4, SIZES.get(protector.name, 32))
    assert stored.spent == protector.spent
    torch.testing.assert_close(templates.norm(dim=1), torch.ones(4), atol=1e-5, rtol=0)
    scores = protector.match(stored, stored)
    torch.testing.assert_close(scores, templates @ templates.T)
    picture = protector.to_image(stored)
    assert picture.shape == (4, 3, 112, 112)
    assert 0 <= float(picture.min()) <= float(picture.max()) <= 1


def test_the_seed_decides(protector: Protector) -> None:
    first, again = (protector.protect(faces(), drawn(3)).tensor for _ in range(2))
    assert torch.equal(first, again)


def test_the_whole_state_of_a_generator_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [torch.randn(4, generator=unknown_generator()) for _ in range(2)]
    assert not torch.equal(*drawn)
    known = torch.Generator().manual_seed(7)
    words = known.get_state()[24 : 24 + 8 * 624].numpy().view("<u8").astype("<u4").tobytes()
    monkeypatch.setattr("bauta.templates.base.secrets.token_bytes", lambda count: words[:count])
    assert torch.equal(torch.randn(2000, generator=unknown_generator()), torch.randn(2000, generator=known))


SHIPPED_NAMES = ["advface-mobilefacenet", "hybrid-mobilefacenet", "local-features-mobilefacenet"]


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_what_ships_protects_faces_at_once(name: str) -> None:
    images = faces(1, 3)
    shipped = load_protector(Path(name))
    stored = shipped.protect_anew(images)
    assert float((shipped.templates(stored) * shipped.probe(images)).sum()) > 0.5


def test_what_ships_is_named_and_small() -> None:
    assert shipped_protectors() == SHIPPED_NAMES
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*")) < 15 << 20
    with pytest.raises(WeightsMissing, match="ship with Bauta: " + ", ".join(SHIPPED_NAMES)):
        load_protector(Path("advface-nobody"))


def test_saved_and_loaded_it_is_the_same(protector: Protector, tmp_path: Path) -> None:
    protector.save(tmp_path / "made")
    loaded = load_protector(tmp_path / "made", protector.recognizer)
    assert loaded.sha256 == protector.sha256
    assert loaded.provenance == protector.provenance
    stored = protector.protect(faces(), drawn())
    assert torch.equal(loaded.protect(faces(), drawn()).tensor, stored.tensor)
    read = Representation.from_bytes(stored.to_bytes())
    torch.testing.assert_close(loaded.match(read, read), protector.match(stored, stored), atol=1e-6, rtol=0)
    with pytest.raises(OutputExists):
        protector.save(tmp_path / "made")


def test_another_recognizer_is_refused_by_name_and_hash(protector: Protector, tmp_path: Path) -> None:
    protector.save(tmp_path / "made")
    other = toy_surrogate(5)
    with pytest.raises(UsageError, match=r"'toy' \(000000000000\), not for 'toy'"):
        load_protector(tmp_path / "made", other)
    theirs = make(protector.name, 5).protect(faces(), drawn())
    with pytest.raises(UsageError, match="recognizer of this representation"):
        protector.templates(theirs)
    with pytest.raises(UsageError, match="recognizer of this representation"):
        protector.match(protector.protect(faces(), drawn()), theirs)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 96, 112), torch.zeros(3, 112, 112), torch.zeros(0, 3, 112, 112),
     torch.full((1, 3, 112, 112), 2.0), torch.full((1, 3, 112, 112), float("nan")),
     torch.zeros(1, 3, 112, 112, dtype=torch.uint8)],
)  # fmt: skip
def test_other_images_are_refused(protector: Protector, images: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="Faces"):
        protector.protect(images, drawn())


def test_keys_are_for_those_that_take_them(protector: Protector) -> None:
    if protector.keyed:
        locked = protector.protect(faces(1), drawn(), KEY)
        assert locked.key == check_value(KEY) != key_fingerprint(KEY)
        with pytest.raises(UsageError, match="reference"):
            locked.to_bytes()
    else:
        with pytest.raises(UsageError, match="takes no key"):
            protector.protect(faces(1), drawn(), KEY)


def test_a_form_that_it_does_not_write_is_refused(protector: Protector) -> None:
    stored = protector.protect(faces(2), drawn())
    assert (stored.storage, tuple(stored.tensor.shape[1:])) == (protector.storage, protector.row_shape)
    kind = "template" if protector.kind == "feature" else "feature"
    for other in (replace(stored, kind=kind), replace(stored, tensor=stored.tensor[:, :, None])):
        with pytest.raises(UsageError, match=f"stores {protector.kind} rows"):
            protector.templates(other)


def test_one_sided_matching_compares_with_clean_templates(protector: Protector) -> None:
    stored = protector.protect(faces(2), drawn())
    expected = protector.templates(stored) @ protector.probe(faces(3, 7), drawn(1)).T
    torch.testing.assert_close(protector.match_clean(stored, faces(3, 7), generator=drawn(1)), expected)


# References


def test_references_do_what_they_are_called() -> None:
    images = faces()
    recognizer = toy_surrogate()
    identity = make("identity-feature")
    torch.testing.assert_close(identity.templates(identity.protect(images, drawn())), recognizer(images))
    constant = make("constant-image")
    assert len(constant.protect(images, drawn()).values().unique()) == 1
    noisy = make("noisy-image").protect(images, drawn()).values()
    assert not torch.equal(noisy, make("noisy-image").protect(images, drawn(1)).values())
    pixelated = make("pixelated-image").protect(images, drawn()).values()
    assert len(pixelated[0, 0].unique()) <= 100
    blurred = make("blurred-image").protect(images, drawn()).values()
    assert float(blurred.std()) < float(images.std())


def test_a_reference_refuses_other_settings() -> None:
    for settings in ({"sigma": -1.0}, {"cells": 3}):
        with pytest.raises(UsageError, match="blurred-image"):
            fitted("blurred-image", faces(), **settings)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_fitted_by_one_signature_and_says_what_it_has(name: str) -> None:
    made = load_method(name, kind="protector")
    assert list(inspect.signature(made.fit).parameters) == ["images", "config", "training", "work"]
    known = {one.name: one for one in [*made.Config.options(), *made.Training.options()]}
    assert all(one.help for one in known.values())
    assert set(made.Config.of({}).to_dict()) == {one.name for one in made.Config.options()}
    with pytest.raises(UsageError, match=f"{name} has no setting wheels") as caught:
        fitted(name, faces(), wheels=4)
    assert all(one in str(caught.value.hint) for one in known)


def test_a_seed_that_is_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="seed -1"):
        fitted("constant-image", faces(), seed=-1)


def test_kinds_of_methods_are_not_mixed_up() -> None:
    with pytest.raises(UsageError, match="advface protects what a face service stores"):
        load_method("advface", kind="cloak")


# Representations


def test_bytes_and_values_of_each_storage() -> None:
    stored = representation()
    assert stored.bytes_each == 48
    half = stored.stored_as("float16")
    assert half.bytes_each == 24
    torch.testing.assert_close(half.values(), stored.tensor)
    low, high = torch.zeros(3), torch.full((3,), 23.0)
    small = stored.stored_as("uint8", low=low, high=high)
    assert small.bytes_each == 12
    assert float((small.values() - stored.tensor).abs().max()) <= 23 / 255 / 2 + 1e-5
    assert float(stored.stored_as("uint8", low=low, high=low + 5).values().max()) == pytest.approx(5)
    assert len(small[torch.tensor([1])]) == 1


def stored_in(storage: Any) -> Representation:
    return representation().stored_as(storage, low=torch.zeros(3), high=torch.full((3,), 23.0))


STORAGES = pytest.mark.parametrize("storage", ["float32", "float16", "uint8"])


@STORAGES
@pytest.mark.parametrize("epsilon", [(), (8.0, 1024.0)])
def test_bytes_keep_everything(storage: Any, epsilon: tuple[float, ...]) -> None:
    stored = replace(stored_in(storage), epsilon=epsilon)
    assert same(Representation.from_bytes(stored.to_bytes()), stored)


@STORAGES
@pytest.mark.parametrize("epsilon", [(), (8.0, 1024.0)])
def test_rows_and_their_format_keep_everything(storage: Any, epsilon: tuple[float, ...]) -> None:
    stored = replace(stored_in(storage), epsilon=epsilon)
    rows = stored.rows()
    assert {len(row) for row in rows} == {stored.bytes_each} == {stored.format.bytes_each}
    form = RowFormat.from_json(stored.format.to_json())
    assert form == stored.format
    assert same(Representation.from_rows(form, rows), stored)
    for wrong in ([], [rows[0][:-1]], [bytes(rows[0]) + b"x"]):
        with pytest.raises(UsageError, match="length"):
            Representation.from_rows(form, wrong)


def same(one: Representation, other: Representation) -> bool:
    return one.format == other.format and torch.equal(one.tensor, other.tensor)


@pytest.mark.parametrize(
    "changes",
    [{"kind": "face"}, {"storage": "float16"}, {"storage": "int4"}, {"tensor": torch.zeros(3)},
     {"recognizer_sha256": "x"}, {"low": torch.zeros(3)}, {**BYTES, "storage": "uint8"},
     {**BYTES, "storage": "uint8", "low": torch.zeros(3), "step": torch.zeros(3)},
     {"epsilon": (8.0,)}, {"epsilon": (0.0, 8.0)}, {"epsilon": (8.0, 4.0)}, {"epsilon": (1.0, float("inf"))}],
)  # fmt: skip
def test_what_is_no_representation_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        representation(**changes)


def test_nan_is_refused() -> None:
    with pytest.raises(NumericalFailure):
        representation(tensor=torch.full((1, 3), float("nan")))


def test_mismatched_representations_are_refused_by_name_and_hash() -> None:
    stored = representation()
    for change, message in (
        ({"recognizer": "other"}, r"'toy' \(aaaaaaaaaaaa\), not 'other'"),
        ({"recognizer_sha256": "c" * 64}, r"aaaaaaaaaaaa\), not 'toy' \(cccccccccccc"),
        ({"protector_sha256": "c" * 64}, r"'advface' \(bbbbbbbbbbbb\), not 'advface' \(cccccccccccc"),
        ({"tensor": torch.zeros(2, 4, 2, 2)}, "does not compare"),
    ):
        with pytest.raises(UsageError, match=message):
            stored.require_same_maker(replace(stored, **change))


def crafted(about: Any = None, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> bytes:
    """The bytes of a representation with other fields or tensors."""
    fields = {"schema": 2, **{name: getattr(representation(), name) for name in TEXTS}, **changes}
    text = about if isinstance(about, str) else json.dumps(fields if about is None else about)
    return save(tensors or {"values": representation().tensor}, metadata={"bauta.representation": text})


TEXTS = ("kind", "recognizer", "recognizer_sha256", "protector", "protector_sha256", "storage")
VALUES = representation().tensor
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a whole safetensors"),
    "cut": (crafted()[:-5], "not a whole safetensors"),
    "cut in the header": (crafted()[:40], "not a whole safetensors"),
    "something else": (b"x" * 100, "not a whole safetensors"),
    "another's safetensors": (save({"values": VALUES}), "not JSON"),
    "not JSON": (crafted("{"), "not JSON"),
    "a nested bomb": (crafted("[" * 200_000), "not JSON"),
    "a number of many digits": (crafted('{"schema": ' + "9" * 5000 + "}"), "not JSON"),
    "a list": (crafted([1, 2]), "not a JSON object"),
    "a field too many": (crafted(key="0123456789abcdef"), "unknown field: 'key'"),
    "no kind": (crafted({"schema": 2}), "no 'kind' that is str"),
    "a budget that is text": (crafted(epsilon="8"), "no 'epsilon' that is list"),
    "a budget of text": (crafted(epsilon=["a", "b"]), "A budget cannot be"),
    "schema true": (crafted(schema=True), "no 'schema' that is int"),
    "schema 2.0": (crafted(schema=2.0), "no 'schema' that is int"),
    "a schema to come": (crafted(schema=3), "schema is 3"),
    "nested kind": (crafted(kind={"a": [1]}), "no 'kind' that is str"),
    "name null": (crafted(recognizer=None), "no 'recognizer' that is str"),
    "unknown kind": (crafted(kind="voice"), "cannot be a 'voice'"),
    "unknown storage": (crafted(storage="int4"), "cannot be stored as 'int4'"),
    "another storage": (crafted(storage="float16"), "given torch.float32"),
    "no digest": (crafted(protector_sha256="x"), "not a SHA-256"),
    "a tensor too many": (
        crafted(tensors={"values": VALUES, "more": VALUES[:1].clone()}),
        "other tensors than values: more, values",
    ),
    "ranges without need": (crafted(tensors={"values": VALUES, "low": torch.zeros(3)}), "other tensors than values"),
    "no ranges": (crafted(storage="uint8", tensors={"values": VALUES.byte()}), "other tensors than high|low, step"),
    "no values": (crafted(tensors={"other": VALUES}), "other tensors than values: other"),
    "NaN": (crafted(tensors={"values": VALUES * float("nan")}), "NaN"),
    "no faces": (crafted(tensors={"values": VALUES[:0]}), r"shape \[0, 3"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused_by_name(name: str) -> None:
    content, words = HOSTILE[name]
    with pytest.raises(WeightsCorrupt) as caught:
        Representation.from_bytes(content)
    assert re.search(words, str(caught.value))


def test_the_bytes_that_are_refused_are_those_that_were_changed() -> None:
    assert same(Representation.from_bytes(crafted()), representation())


@pytest.mark.parametrize(
    ("change", "words"),
    [({"shape": [True]}, "'shape' that is a list of int"), ({"shape": "3"}, "'shape' that is list"),
     ({"low": [1]}, "'low' that is a list of float"), ({"more": 1}, "unknown field: 'more'"),
     ({"kind": 3}, "'kind' that is str")],
)  # fmt: skip
def test_formats_with_other_fields_are_refused(change: dict[str, Any], words: str) -> None:
    about = json.loads(representation().format.to_json())
    with pytest.raises(WeightsCorrupt) as caught:
        RowFormat.from_json(json.dumps({**about, **change}))
    assert words in str(caught.value)


@pytest.mark.parametrize("shape", [(), (0,), (-3, -4), (1 << 20, 1 << 20), (1,) * 9])
def test_rows_of_no_size_or_of_terabytes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="cannot have shape"):
        replace(representation().format, shape=shape)


def test_short_keys_are_refused_and_fingerprints_differ() -> None:
    assert check_value(None) == ""
    assert check_value(KEY) == check_value(KEY) != check_value(KEY[::-1])
    with pytest.raises(UsageError, match="3 bytes"):
        key_fingerprint(b"abc")
    assert key_fingerprint(None) == ""
    assert key_fingerprint(KEY) != key_fingerprint(KEY[::-1])


# Folders of protectors


def test_a_damaged_protector_is_refused(tmp_path: Path) -> None:
    protector = make("advface")
    with pytest.raises(WeightsMissing, match="no protector"):
        load_protector(tmp_path, protector.recognizer)
    protector.save(tmp_path)
    card, parts = tmp_path / "card.toml", tmp_path / "parts.safetensors"
    text, content = card.read_text(), parts.read_bytes()
    edited = text.replace(f"epsilon = {protector.settings()['epsilon']}", "epsilon = 0.1")
    assert edited != text
    card.write_text(edited)
    with pytest.raises(WeightsCorrupt, match="settings and parts"):
        load_protector(tmp_path, protector.recognizer)
    for wrong in ("schema = 2", "epsilon = ["):
        card.write_text(text.replace(wrong.partition("=")[0] + "=", wrong + " #", 1))
        with pytest.raises(UsageError):
            load_protector(tmp_path, protector.recognizer)
    card.write_text(text)
    parts.write_bytes(content[:-1] + b"x")
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        load_protector(tmp_path, protector.recognizer)
    parts.unlink()
    with pytest.raises(WeightsMissing, match="learned parts"):
        load_protector(tmp_path, protector.recognizer)
