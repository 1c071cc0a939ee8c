"""What was under masks comes back for its owner, bit for bit where the format has no loss, and for others never."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

import bauta
from bauta.cli.run import run
from bauta.cloaking.erasing import erase, sealed_regions
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.errors import BautaError, OutputError, UsageError, WeightsCorrupt, WrongKey
from bauta.keys import DeploymentKey
from bauta.photo import MetadataPolicy, Photo, read_photo
from bauta.photo.attachment import REGIONS, attach, attached
from bauta.photo.regions import changed_regions, coded_region, with_region
from protection_fakes import build_stage, write_photo

stage = pytest.fixture(build_stage)
KEY, OTHER = DeploymentKey.generate(), DeploymentKey.generate()


def made(photo: Photo, key: DeploymentKey = KEY, **changes: object) -> Photo:
    settings = ProtectSettings(method="negative", erasable=key, **changes)  # type: ignore[arg-type]
    content = Pipeline(settings).protect(photo).content
    assert content is not None
    return read_photo(content)


def picture(path: Path, form: str, **options: object) -> Photo:
    """A photo of two people, in some form."""
    image = Image.open(write_photo(path / "two.png", "anna", "ben"))
    stream = io.BytesIO()
    mode, _, kind = form.rpartition(" ")
    if mode == "16-bit":
        samples = np.asarray(image.convert("L")).astype(np.uint16) * 257 + 3
        Image.fromarray(samples).save(stream, kind)
    else:
        if mode == "RGBA":
            image.putalpha(Image.fromarray(np.full(image.size[::-1], 200, np.uint8)))
        image = image.convert(mode) if mode else image
        if kind == "HEIF":
            pillow_heif.from_pillow(image).save(stream, **options)
        else:
            image.save(stream, kind, **options)
    return read_photo(stream.getvalue())


EXACT: list[tuple[str, dict[str, object]]] = [
    ("PNG", {}),
    ("RGBA PNG", {}),
    ("WEBP", {"lossless": True, "exact": True}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("RGBA TIFF", {}),
    ("16-bit TIFF", {}),
]


@pytest.mark.usefixtures("stage")
class TestItComesBack:
    @pytest.mark.parametrize(("form", "options"), EXACT)
    def test_bit_for_bit_without_loss(self, tmp_path: Path, form: str, options: dict[str, object]) -> None:
        photo = picture(tmp_path, form, **options)
        masked = made(photo)
        assert np.abs(masked.pixels - photo.pixels).max() > 0.2
        assert np.array_equal(erase(masked, KEY).pixels, photo.pixels)
        again = read_photo(erase(masked, KEY).encode())
        assert np.array_equal(again.pixels, photo.pixels)
        assert attached(again.content) == []

    @pytest.mark.parametrize("form", ["HEIF", "AVIF", "WEBP"])
    def test_exactly_until_it_is_saved_where_the_format_loses(self, tmp_path: Path, form: str) -> None:
        photo = picture(tmp_path, form, quality=90)
        masked = made(photo)
        under = np.abs(masked.pixels - photo.pixels).max(axis=2) > 0.2
        assert under.mean() > 0.05
        restored = erase(masked, KEY)
        assert np.array_equal(restored.pixels[under], photo.pixels[under])
        again = read_photo(restored.encode())
        assert attached(again.content) == []
        assert np.square(again.pixels - photo.pixels).mean() < 1e-3

    @pytest.mark.parametrize("form", ["HEIF", "AVIF"])
    def test_what_is_sealed_does_not_count_as_the_size_of_the_picture(self, tmp_path: Path, form: str) -> None:
        masked = made(picture(tmp_path, form, quality=60))
        bare = read_photo(attach(masked.content, []))
        assert len(masked.content) > 1.2 * len(bare.content)
        assert masked.encode() == bare.encode()

    @pytest.mark.parametrize("form", ["L PNG", "16-bit PNG", "CMYK JPEG"])
    def test_whatever_the_samples_are(self, tmp_path: Path, form: str) -> None:
        photo = picture(tmp_path, form)
        shift = np.zeros((photo.height, photo.width, 3), np.float32)
        shift[40:90, 30:101] = 0.25
        masked = photo.with_perturbation(shift)
        (region,) = changed_regions(photo, masked)
        assert (region.top % 16, region.left % 16) == (0, 0)
        restored = with_region(masked, region, coded_region(photo, region))
        apart = np.abs(restored.pixels - photo.pixels).max()
        assert apart == 0 if "PNG" in form else apart < 0.06

    @pytest.mark.parametrize("options", [{}, {"quality": 60, "progressive": True}, {"subsampling": 0}])
    def test_from_a_jpeg_but_for_rounding(self, tmp_path: Path, options: dict[str, object]) -> None:
        photo = picture(tmp_path, "JPEG", **options)
        restored = erase(made(photo), KEY)
        assert float(np.square(restored.pixels - photo.pixels).mean()) < 10**-4

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_however_the_photo_is_turned(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.open(write_photo(tmp_path / "a.png", "anna", "ben"))
        back = {1: 0, 2: 0, 3: 1, 4: 1, 5: 4, 6: 2, 7: 5, 8: 4}  # any turn will do: the fake looks at a corner
        turned = stored.transpose(Image.Transpose(back[orientation])) if orientation > 1 else stored
        stream = io.BytesIO()
        turned.save(stream, "PNG", exif=exif)
        photo = read_photo(stream.getvalue())
        shift = np.zeros((photo.height, photo.width, 3), np.float32)
        shift[20:70, 30:60] = 0.3
        masked = photo.with_perturbation(shift)
        file = attach(masked.encode(), [(REGIONS, sealed_regions(photo, masked, KEY))])
        assert np.array_equal(erase(read_photo(file), KEY).pixels, photo.pixels)

    def test_covers_come_off_too(self, tmp_path: Path) -> None:
        photo = picture(tmp_path, "PNG")
        masked = made(photo, selection=Selection(faces=((1, "blur"), (2, "leave"))))
        assert not np.array_equal(masked.pixels, photo.pixels)
        assert np.array_equal(erase(masked, KEY).pixels, photo.pixels)

    def test_two_owners_take_off_their_own_and_the_last_one_first(self, tmp_path: Path) -> None:
        photo = picture(tmp_path, "PNG")
        first = made(photo, selection=Selection(faces=((1, "protect"), (2, "leave"))))
        second = made(first, OTHER, selection=Selection(faces=((1, "leave"), (2, "protect"))))
        assert len(attached(second.content)) == 2
        assert np.array_equal(erase(second, OTHER).pixels, first.pixels)
        half = erase(second, KEY)
        assert not np.array_equal(half.pixels, photo.pixels)
        twice = made(first, KEY, selection=Selection(faces=((1, "leave"), (2, "protect"))))
        assert np.array_equal(erase(twice, KEY).pixels, photo.pixels)

    def test_a_passphrase_will_do(self, tmp_path: Path) -> None:
        photo, key = picture(tmp_path, "PNG"), DeploymentKey.from_passphrase("six words drawn at random here")
        masked = made(photo, key)
        assert np.array_equal(erase(masked, key).pixels, photo.pixels)
        with pytest.raises(WrongKey):
            erase(masked, DeploymentKey.from_passphrase("six words drawn at random there"))

    def test_a_mask_that_would_not_come_off_is_not_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def wrong(original: Photo, masked: Photo, key: DeploymentKey) -> bytes:
            return sealed_regions(original.with_perturbation(np.full(original.pixels.shape, 0.01)), masked, key)

        monkeypatch.setattr("bauta.cloaking.erasing.sealed_regions", wrong)
        with pytest.raises(OutputError, match="do not come off"):
            made(picture(tmp_path, "PNG"))


@pytest.fixture
def masked(stage: object, tmp_path: Path) -> Photo:
    return made(picture(tmp_path, "PNG"))


class TestOthers:
    def test_another_key_opens_nothing(self, masked: Photo) -> None:
        with pytest.raises(WrongKey, match="does not open"):
            erase(masked, OTHER)

    def test_every_changed_byte_is_refused(self, masked: Photo) -> None:
        ((kind, sealed),) = attached(masked.content)
        for place in {*range(160), *range(160, len(sealed), len(sealed) // 200)}:
            changed = bytearray(sealed)
            changed[place] ^= 1
            with pytest.raises(BautaError):
                erase(read_photo(attach(masked.content, [(kind, bytes(changed))])), KEY)

    @pytest.mark.parametrize("length", [0, 1, 40, 119, 500])
    def test_what_is_cut_off_is_refused(self, masked: Photo, length: int) -> None:
        ((kind, sealed),) = attached(masked.content)
        with pytest.raises(WeightsCorrupt):
            erase(read_photo(attach(masked.content, [(kind, sealed[:length])])), KEY)

    def test_a_part_of_another_photo_is_refused(self, masked: Photo, tmp_path: Path) -> None:
        other = made(read_photo(write_photo(tmp_path / "b.png", "carl", "dora")))
        moved = read_photo(attach(masked.content, attached(other.content)))
        with pytest.raises(UsageError, match="not the photo that this was sealed for"):
            erase(moved, KEY)

    def test_a_photo_that_was_cropped_or_resized_is_refused(self, masked: Photo) -> None:
        image = Image.open(io.BytesIO(masked.content))
        for changed in (image.crop((8, 0, *image.size)), image.resize((100, 80))):
            stream = io.BytesIO()
            changed.save(stream, "PNG")
            with pytest.raises(UsageError, match="cropped or resized"):
                erase(read_photo(attach(stream.getvalue(), attached(masked.content))), KEY)

    def test_a_photo_that_was_saved_anew_says_so(self, masked: Photo) -> None:
        with pytest.raises(UsageError, match="nothing that could be put back"):
            erase(read_photo(masked.encode()), KEY)

    def test_a_brighter_copy_that_kept_its_part_comes_back(self, masked: Photo, tmp_path: Path) -> None:
        lighter = masked.with_perturbation(np.full(masked.pixels.shape, 0.01, np.float32))
        restored = erase(read_photo(attach(lighter.encode(), attached(masked.content))), KEY)
        photo = picture(tmp_path, "PNG")
        regions = changed_regions(photo, masked)
        assert regions
        for region in regions:
            assert np.array_equal(restored.pixels[region.part], photo.pixels[region.part])

    def test_length_and_bytes_tell_nothing_of_the_person(self, stage: object, tmp_path: Path) -> None:
        people: Sequence[str] = ("anna", "ben", "carl", "dora")
        sealed = []
        for name in people:
            photo = read_photo(write_photo(tmp_path / f"{name}.png", name))
            sealed.append(attached(made(photo).content)[0][1])
        assert len({len(one) for one in sealed}) == 1
        again = attached(made(read_photo(tmp_path / "anna.png")).content)[0][1]
        assert len(set(sealed[0][120:]) ^ set(again[120:])) < 40  # both look like noise
        alike = np.mean(np.frombuffer(sealed[0][120:], np.uint8) == np.frombuffer(again[120:], np.uint8))
        assert alike < 0.02


@pytest.mark.usefixtures("stage")
class TestAsking:
    def test_a_policy_without_a_place_is_refused_before_anything_is_done(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="to be stripped"):
            replace(ProtectSettings(erasable=KEY), metadata=MetadataPolicy.STRIP)

    def test_on_the_command_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write_photo(Path("a.png"), "anna", "ben")
        command = ["protect", "a.png", "--method", "negative", "--erasable"]
        assert run(command) == 2
        assert "nothing is given to seal it with" in capsys.readouterr().err
        assert run([*command, "--key", "my.key"]) == 0
        assert Path("my.key").stat().st_mode & 0o777 == 0o600
        product = Path("protected/a.png")
        assert run(["restore", str(product), "--key", "my.key", "-o", "back"]) == 0
        assert np.array_equal(read_photo("back/a.png").pixels, read_photo("a.png").pixels)
        assert run(["restore", str(product), "--key", "my.key", "-o", "back"]) != 0  # never over a file
        Path("other.key").write_bytes(OTHER.secret)
        Path("other.key").chmod(0o600)
        capsys.readouterr()
        assert run(["restore", str(product), "--key", "other.key", "-o", "more"]) == 9
        assert "does not open" in capsys.readouterr().err
        assert run(["restore", str(product), "-o", "more"]) == 2
        assert "--key FILE" in capsys.readouterr().err

    def test_from_python(self, tmp_path: Path) -> None:
        path = write_photo(tmp_path / "a.png", "anna")
        result = bauta.protect(path, method="negative", erasable=KEY)
        assert np.array_equal(bauta.restore(result.content, opens=KEY).pixels, read_photo(path).pixels)
