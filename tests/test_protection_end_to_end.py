"""The real thing: detector, dlib's recogniser, TIP-IM, files. Few steps, so that it is fast."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bauta
from bauta.cli import run
from bauta.photo import read_photo

MODELS = os.environ.get("BAUTA_MODELS", "")


@pytest.fixture
def portrait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.astronaut()).save("portrait.jpg", quality=92)
    return Path("portrait.jpg")


def test_the_default_install_protects_and_asks_its_judge(portrait: Path) -> None:
    original = portrait.read_bytes()
    assert run(["protect", "portrait.jpg", "-o", "out", "--steps", "5", "--strength", "high"]) in (0, 7, 8)
    report = json.loads(Path("out/reports/portrait.report.json").read_text())
    assert report["verdict"] in ("protected", "fragile", "weak")
    assert [(card["name"], card["attacked"], card["judged"]) for card in report["recognizers"]] == [
        ("dlib_resnet", True, False),
        ("chip_resnet", True, False),
        ("mobilefacenet", True, False),
        ("mobilenet", False, True),
    ]
    (face,) = report["faces"]
    rows = [row for row in face["comparisons"] if row["condition"] == "saved"]
    assert rows[0]["after"] < 0.95
    assert all(face["found"].values())
    seen = face["mask"]["visibility"]
    assert 0 < seen["displacement"] <= 5.3
    assert 0 < seen["strain"] <= 0.23
    assert seen["psnr"] > 29
    assert seen["chroma"] < 1
    assert portrait.read_bytes() == original
    (made,) = Path("out").rglob("portrait.jpg")
    assert (made.parent.name == "weak") == (report["verdict"] == "weak")
    before, after = read_photo(portrait), read_photo(made)
    assert (after.format, after.pixels.shape) == ("JPEG", before.pixels.shape)
    far = np.abs(after.pixels - before.pixels)[300:]
    assert far.mean() < 1 / 255


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.skipif(not MODELS, reason="BAUTA_MODELS does not name the research recognisers")
def test_independent_judges_confirm_a_full_run(portrait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAUTA_MODELS", MODELS)
    assert bauta.protect(portrait).verdict == "protected"
