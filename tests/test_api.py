"""The package's verbs from Python: what photos may be, what wrong arguments say, and what a notebook shows."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageCms

import bauta
from bauta.calls import checked
from bauta.errors import BautaError, InternalError, UnreadablePhoto, UnsupportedPhoto, UsageError
from bauta.judging.findings import Verdict
from bauta.photo import MetadataPolicy, Photo, read_photo
from bauta.templates import Representation
from bauta.testing import toy_surrogate
from protection_fakes import Stage, build_stage, write_photo
from toy_veil import declare

stage = pytest.fixture(build_stage)


@pytest.fixture
def photo(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bauta.cloaking.verbs.detect_faces", stage.detect)
    monkeypatch.setattr("bauta.cloaking.fitting.detect_faces", stage.detect)
    monkeypatch.setattr("bauta.cloaking.fitting.load_surrogate", lambda card: toy_surrogate(1, card.name))
    declare(monkeypatch)
    return write_photo(tmp_path / "photo.png", "ann")


# Photos


def given(path: Path, form: str) -> Any:
    with Image.open(path) as image:
        image.load()
    return {
        "text": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "image": image,
        "palette": image.quantize(8),
        "array": np.asarray(image),
        "reversed": np.asarray(image)[:, ::-1],
        "alpha": np.asarray(image.convert("RGBA")),
        "photo": read_photo(path),
    }[form]


@pytest.mark.parametrize("form", ["text", "path", "bytes", "image", "array", "alpha", "photo"])
def test_a_photo_in_every_form_is_protected_alike(photo: Path, form: str) -> None:
    result = bauta.protect(given(photo, form), method="negative")
    wanted = bauta.protect(photo, method="negative")
    assert np.array_equal(result.report.saved, wanted.report.saved)
    assert result.verdict == wanted.verdict == "protected"
    assert result.report.source.name == ("" if form in ("bytes", "image", "array", "alpha") else "photo.png")


@pytest.mark.parametrize("form", ["bytes", "image", "array"])
def test_photos_of_people_may_be_in_memory_too(photo: Path, form: str) -> None:
    other = write_photo(photo.parent / "other.png", "ann")
    report = bauta.protect(
        photo, method="negative", only=given(other, form), references=[given(other, form)] * 2
    ).report
    assert [name for name, _ in report.references] == ["photo in memory", "photo in memory (2)"]
    assert report.verdict == "protected"
    checked_again = bauta.verify(given(photo, form), bauta.protect(photo, method="negative").image, references=[other])
    assert checked_again.verdict == "protected"


@pytest.mark.parametrize(
    ("mode", "shape"), [("1", (6, 4)), ("L", (6, 4)), ("LA", (6, 4)), ("P", (6, 4)), ("RGB", (6, 4)), ("I;16", (6, 4))]
)
def test_images_of_every_mode_that_a_png_holds(mode: str, shape: tuple[int, int]) -> None:
    image = Image.new(mode, shape)
    assert read_photo(image).pixels.shape == (4, 6, 3)


def test_an_image_that_lies_on_its_side_is_put_upright_and_keeps_its_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn to the right
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = 200
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, icc_profile=profile, quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        upright, wanted = read_photo(image), read_photo(tmp_path / "a.jpg")
    assert upright.pixels.shape == wanted.pixels.shape == (80, 40, 3)
    assert np.abs(upright.pixels - wanted.pixels).max() < 0.02
    saved = Image.open(io.BytesIO(upright.encode()))
    assert saved.info["icc_profile"] == profile
    assert not saved.getexif()


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((4, 6, 3), np.float32), np.zeros((4, 6, 2), np.uint8), np.zeros((2, 4, 6, 3), np.uint8),
        np.zeros((0, 6, 3), np.uint8), np.zeros(5, np.uint8), np.zeros((4, 6), np.bool_), np.zeros((4, 6), object),
        Image.new("CMYK", (6, 4)), Image.new("F", (6, 4)), Image.new("HSV", (6, 4)),
    ],
)  # fmt: skip
def test_pictures_of_another_kind_are_refused(picture: Any) -> None:
    with pytest.raises(UnsupportedPhoto) as caught:
        read_photo(picture)
    assert caught.value.hint


def test_an_image_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(stream, "PNG")
    with pytest.raises(UnreadablePhoto):
        read_photo(Image.open(io.BytesIO(stream.getvalue()[:9000])))


def test_what_was_no_file_is_saved_as_png(photo: Path) -> None:
    result = bauta.protect(given(photo, "array"), method="negative")
    with pytest.raises(UsageError, match="another format's ending"):
        result.save("made.jpg")
    assert read_photo(result.save("made.png")).format == "PNG"


# Wrong arguments: each of them for each argument of each verb, unless the verb takes it

WRONG: dict[str, Any] = {
    "none": None, "int": 123, "negative": -1, "huge": 10**400, "float": 1.5, "nan": float("nan"), "bool": True,
    "complex": 1j, "text": "10s", "zero byte": "a\0b", "empty": "", "bytes": b"x", "bytearray": bytearray(b"x"),
    "list": [1], "nested": [[1]], "list of none": [None], "tuple": (1, 2), "set": {1}, "dict": {"a": 1},
    "dict by number": {1: 2}, "class": int, "function": len, "object": object(), "array": np.zeros((2, 3)),
    "scalar": np.float32("nan"), "date": date(2026, 1, 1), "iterator": iter([1]),
    "path": Path("not-there.png"), "list of paths": [Path("not-there.png")], "literal": "loud",
}  # fmt: skip
TEXTS = {"text", "empty", "zero byte", "literal"}
# What is allowed, and so fails nowhere
FINE = {
    ("protect", "seed"): {"int"},
    ("protect", "budget"): {"none", "int", "float"},
    ("fit", "seed"): {"int", "none"},
    ("fit", "renew"): {"none"},
    ("*", "opens"): {"none"},
    ("*", "erasable"): {"none"},
    ("protect", "faces"): {"none"},
    ("*", "options"): {"none"},
    ("*", "largest"): {"bool"},
    ("*", "message"): {"none"},
    ("*", "key"): {"none"},
    ("list_methods", "pattern"): TEXTS,
    ("list_methods", "kind"): TEXTS | {"none"},
}
SOUND: dict[str, dict[str, Any]] = {
    "protect": {"photo": "photo.png", "method": "negative"},
    "verify": {"original": "photo.png", "protected": "photo.png"},
    "fit": {"method": "toy-veil", "photos": ["photo.png"], "options": {"steps": 1}},
    "read": {"photo": "photo.png", "method": "negative"},
    "restore": {"photo": "photo.png", "method": "negative"},
    "read_photo": {"source": "photo.png"},
    "list_methods": {},
    "load_recognizer": {"recognizer": "nothing"},
}


def error_of(action: Callable[..., object]) -> BautaError | None:
    try:
        action()
    except BautaError as error:
        return error
    return None


ARGUMENTS = [(verb, name) for verb in SOUND for name in inspect.signature(getattr(bauta, verb)).parameters]


@pytest.mark.parametrize(("verb", "name"), ARGUMENTS)
def test_wrong_values_of_every_argument_are_errors_of_ours(photo: Path, verb: str, name: str) -> None:
    refused = 0
    for kind, value in WRONG.items():
        if name == "progress" and kind in ("function", "class"):  # which may be one
            continue
        allowed = FINE.get((verb, name), set()) | FINE.get(("*", name), set())
        wrong = error_of(lambda value=value: getattr(bauta, verb)(**SOUND[verb] | {name: value}))
        if wrong is None:
            assert kind in allowed, "was taken"
            continue
        assert not isinstance(wrong, InternalError), (kind, wrong)
        assert wrong.hint, (kind, wrong)
        assert len(str(wrong)) < 600, kind
        refused += 1
    assert refused > 15


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("seed", "x", "protect cannot take seed='x'. It is a whole number."),
        ("budget", "10s", "protect cannot take budget='10s'. It is a number or None."),
        ("strength", "loud", "protect cannot take strength='loud'. It is 'low' or 'medium' or 'high'."),
        ("metadata", "some", "protect cannot take metadata='some'. It is a MetadataPolicy, such as"),
        ("boxes", [(1, 2, 3)], "protect cannot take boxes=a list of 1. It is a list, each of its values a tuple of 4"),
        ("options", {1: 2}, "protect cannot take options=a table. It is a dict by name or None."),
        ("progress", 3, "protect cannot take progress=3. It is a function."),
    ],
)
def test_a_refusal_names_the_argument_and_what_it_may_be(photo: Path, argument: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        bauta.protect(photo, method="negative", **{argument: value})
    assert str(caught.value).startswith(said)


def test_a_photo_of_no_kind_says_what_a_photo_may_be(stage: Stage) -> None:
    for value in (123, None, 1.5, object(), ["photo.jpg"]):
        with pytest.raises(UsageError, match="It is a path, bytes, a Pillow image, an array or a Photo"):
            bauta.protect(value, method="negative")  # type: ignore[arg-type]


@pytest.mark.parametrize("metadata", ["strip", MetadataPolicy.STRIP])
def test_policies_are_words_too(photo: Path, metadata: Any) -> None:
    report = bauta.protect(photo, method="negative", metadata=metadata, seed=np.int64(3), budget=np.float32(9)).report
    assert report.settings.metadata is MetadataPolicy.STRIP
    assert (type(report.settings.seed), type(report.settings.budget)) == (int, float)
    assert report.to_json()


def test_what_breaks_inside_is_an_error_of_ours(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(BautaError, match="No space left"):
        bauta.protect(photo, method="negative", progress=full)
    with pytest.raises(InternalError, match="ZeroDivisionError") as caught:
        bauta.protect(photo, method="negative", progress=defect)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_calls_that_are_none_are_python_s_own_errors() -> None:
    with pytest.raises(TypeError, match="missing"):
        bauta.protect()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected"):
        bauta.protect("a.jpg", strenght="low")  # type: ignore[call-arg]


def test_annotations_of_every_form_are_understood() -> None:
    @checked
    def takes(pair: tuple[int, str], table: dict[str, int] | None = None, anything: Any = None) -> tuple[int, str]:
        return pair

    assert takes((1, "a"), anything=object()) == (1, "a")
    for wrong in ((1, 2), (1,), "1a", (True, "a")):
        with pytest.raises(UsageError, match="takes cannot take pair"):
            takes(wrong)  # type: ignore[arg-type]


# What a notebook and a person see


def test_results_are_short_and_shown(photo: Path) -> None:
    result = bauta.protect(photo, method="negative")
    assert repr(result.report).startswith("<Report protected: 1 faces, 2 judges, margin +")
    assert repr(result.report) in repr(result)
    assert len(repr(result)) < 160
    for shown in (result, result.report, bauta.verify(photo, result.image)):
        page = shown._repr_html_()
        assert page.startswith("<iframe srcdoc=")
        assert 'sandbox="allow-scripts"' in page
        assert page.count('"') == 6  # the page itself is escaped
    assert result.verdict in get_args(Verdict)


def test_a_representation_goes_to_bytes_and_back() -> None:
    import torch

    made = Representation(torch.arange(6).float().reshape(2, 3), "template", "mine", "0" * 64, "advface", "1" * 64)
    again = Representation.from_bytes(made.to_bytes())
    assert torch.equal(again.tensor, made.tensor)
    assert again.to_bytes() == made.to_bytes()
    assert repr(made) == "<Representation of 2 faces: template 3 float32, by advface>"


PUBLIC = [
    *((f"bauta.{name}", getattr(bauta, name)) for name in bauta.__all__),
    *(
        (f"{room}.{name}", getattr(import_module(room), name))
        for room in ("bauta.templates", "bauta.gallery")
        for name in import_module(room).__all__
    ),
]
# Settings of a method differ from method to method, and a report's JSON is of any shape
UNTYPED = {"fit", "settings", "restore", "to_dict"}


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*one, id=one[0]) for one in PUBLIC])
def test_public_signatures_say_what_they_take(name: str, thing: Any) -> None:
    functions = {name: thing}
    if inspect.isclass(thing):
        members = {part: inspect.unwrap(getattr(value, "__func__", value)) for part, value in vars(thing).items()}
        functions = {part: one for part, one in members.items() if not part.startswith("_") and part not in UNTYPED}
        assert "Any" not in str({k: v for k, v in inspect.get_annotations(thing).items() if k != "settings"})
    for part, function in functions.items():
        if inspect.isfunction(function):
            assert "Any" not in str(inspect.get_annotations(function)), part


def test_python_s_own_doc_says_every_argument() -> None:
    for verb in ("protect", "verify", "fit", "read", "restore"):
        function = getattr(bauta, verb)
        described = inspect.getdoc(function) or ""
        for name in inspect.signature(function).parameters:
            assert f"    {name}: " in described, (verb, name)
    assert isinstance(read_photo.__doc__, str)
    assert Photo.save.__doc__
