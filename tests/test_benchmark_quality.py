"""Quality of masks: sets of faces, LPIPS, and what is too small to be measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bauta import metrics
from bauta.errors import UsageError
from bauta.judging.lpips import Lpips
from bauta.judging.quality import MEASURES, photo_quality, set_quality
from bauta.judging.visibility import Visibility

SHAPES = ((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number, (wide, deep, side) in enumerate(SHAPES):
        found[f"conv{number + 1}.weight"] = torch.randn(wide, deep, side, side, generator=generator) / (deep * side)
        found[f"conv{number + 1}.bias"] = torch.randn(wide, generator=generator) / 10
        found[f"lin{number}"] = torch.rand(wide, generator=generator)
    return found


@pytest.fixture
def file(weights: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    save_file(weights, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


def images(count: int = 2, side: int = 64) -> np.ndarray:
    return np.random.default_rng(1).random((count, side, side, 3), dtype=np.float32)


class TestLpips:
    def test_it_is_the_formula_on_alexnet(self, weights: dict[str, torch.Tensor], file: Path) -> None:
        def convolution(number: int, **options: int) -> nn.Conv2d:
            wide, deep, side = SHAPES[number - 1]
            layer = nn.Conv2d(deep, wide, side, **options)
            layer.load_state_dict({part: weights[f"conv{number}.{part}"] for part in ("weight", "bias")})
            return layer

        pool = nn.MaxPool2d(3, 2)  # AlexNet as torchvision writes it, up to its last rectifier
        layers = [
            convolution(1, stride=4, padding=2), nn.ReLU(), pool, convolution(2, padding=2), nn.ReLU(), pool,
            convolution(3, padding=1), nn.ReLU(), convolution(4, padding=1), nn.ReLU(), convolution(5, padding=1),
            nn.ReLU(),
        ]  # fmt: skip
        one, other = images()
        mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        state = torch.from_numpy(np.stack([(one - mean) / deviation, (other - mean) / deviation])).float()
        state = state.permute(0, 3, 1, 2)
        total, place = 0.0, 0
        with torch.no_grad():
            for layer in layers:
                state = layer(state)
                if isinstance(layer, nn.ReLU):
                    unit = state / state.norm(dim=1, keepdim=True)
                    squared = (unit[0] - unit[1]) ** 2
                    total += float((weights[f"lin{place}"] @ squared.flatten(1)).mean())
                    place += 1
        # The authors round the constants of ImageNet once more, to images in [-1, 1].
        assert Lpips(file).distance(one, other) == pytest.approx(total, rel=5e-3)

    def test_equal_images_are_at_zero(self, file: Path) -> None:
        one, other = images()
        lpips = Lpips(file)
        assert lpips.distance(one, one) == 0
        assert lpips.distance(one, other) == pytest.approx(lpips.distance(other, one))

    def test_small_images_are_refused(self, file: Path) -> None:
        with pytest.raises(UsageError, match="at least 48 pixels"):
            Lpips(file).distance(*images(side=40))

    def test_other_files_are_refused(self, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
        save_file({name: value for name, value in weights.items() if name != "lin3"}, tmp_path / "part.safetensors")
        with pytest.raises(UsageError, match="lin3 is missing"):
            Lpips(tmp_path / "part.safetensors")
        (tmp_path / "junk").write_bytes(b"junk")
        for name in ("junk", "none"):
            with pytest.raises(UsageError, match="cannot be read"):
                Lpips(tmp_path / name)


class TestPhotoQuality:
    box = np.array([10, 10, 190, 190], np.float32)

    def test_all_measures(self, file: Path) -> None:
        (original,) = images(1, 200)
        changed = (original + np.float32(0.1)).clip(0, 1)
        seen = Visibility(2.5, 0.1, 36.0, 0.97, 0.2, 0.1, 1.5, 1.0, 0.9)
        found = photo_quality(original, original, changed, self.box, Lpips(file), seen)
        assert tuple(found) == MEASURES
        assert found["displacement"] == 2.5
        assert found["lightness_psnr"] == 36.0
        assert found["psnr"] is None  # of equal pictures
        assert found["ssim"] == 1
        assert None not in [value for name, value in found.items() if name != "psnr"]
        assert found["psnr_photo"] == pytest.approx(metrics.psnr(original, changed), abs=1e-5)

    def test_what_cannot_be_measured_is_none(self) -> None:
        (original,) = images(1, 100)
        found = photo_quality(original, original, images(1, 90)[0], np.array([20, 20, 80, 80]), None)
        assert [name for name, value in found.items() if value is not None] == ["ssim"]
        found = photo_quality(original, original, original, np.array([20, 20, 80, 80]), None)
        assert found["ms_ssim_photo"] is None
        assert found["lpips_photo"] is None
        assert found["flip_photo"] == 0


class TestSetQuality:
    def test_the_mmd_of_sets_with_nothing_in_common_is_that_of_the_paper(self) -> None:
        random = np.random.default_rng(0)
        one, other = (random.integers(0, 256, (100, 112, 112, 3), dtype=np.uint8) for _ in range(2))
        assert set_quality(one, other)["mmd"] == pytest.approx(2 * 19 / 50, abs=1e-3)
        assert set_quality(one, one)["mmd"] == pytest.approx(0, abs=1e-9)

    def test_few_faces_have_no_mmd(self) -> None:
        faces = np.random.default_rng(0).integers(0, 256, (10, 112, 112, 3), dtype=np.uint8)
        found = set_quality(faces, faces)
        assert (found["faces"], found["mmd"]) == (10, None)
        assert found["frechet_onet"] == pytest.approx(0, abs=1e-5)
        assert set_quality(faces, 255 - faces)["frechet_onet"] > 1e-3
        assert set_quality(faces[:1], faces[:1])["frechet_onet"] is None
