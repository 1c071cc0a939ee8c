from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.benchmark.engine.schema import check
from bauta.cloaking.report import Report, amplification, amplified
from bauta.cloaking.verbs import protect, verify
from bauta.errors import UsageError
from bauta.judging.conditions import CONDITIONS
from protection_fakes import Stage, build_stage, write_photo

stage = pytest.fixture(build_stage)

SCHEMA = json.loads(resources.files("bauta.cloaking").joinpath("report.schema.json").read_text())


TITLES = {"protected": "Protected", "weak": "Still recognisable", "unconfirmed": "Changed, but not confirmed"}


def make(path: Path, stage: Stage, kind: str = "protected") -> Report:
    if kind == "unconfirmed":
        stage.drop("attacked_one", "judge_one", "judge_two")
    return protect(path, method="negative", options={"amount": 0.01 if kind == "weak" else 1.0}).report


@pytest.mark.parametrize("kind", TITLES)
def test_data_follow_the_shipped_schema(tmp_path: Path, stage: Stage, kind: str) -> None:
    report = make(write_photo(tmp_path / "a.png", "anna", "bert"), stage, kind)
    data = json.loads(report.to_json())
    check(data, SCHEMA, "report")
    assert data["verdict"] == kind
    assert len(data["faces"]) == 2


def test_data_of_a_verification_and_of_references_follow_the_schema(tmp_path: Path, stage: Stage) -> None:
    photo = write_photo(tmp_path / "a.png", "anna")
    data = json.loads(verify(photo, photo, references=[photo]).to_json())
    check(data, SCHEMA, "report")
    assert data["faces"][0]["quality"]["footprint"] == {"psnr": None, "ssim": pytest.approx(1), "linf": 0}
    assert data["faces"][0]["mask"] is None


def test_the_schema_is_checked_and_not_only_shown(tmp_path: Path, stage: Stage) -> None:
    data = make(write_photo(tmp_path / "a.png", "anna"), stage).to_dict()
    for change in ({"verdict": "safe"}, {"faces": []}, {"extra": 1}, {"seconds": {"total": "long"}}):
        with pytest.raises(UsageError, match=next(iter(change))):
            check({**data, **change}, SCHEMA, "report")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", TITLES)
def test_the_page_holds_everything_it_shows(tmp_path: Path, stage: Stage, kind: str) -> None:
    report = make(write_photo(tmp_path / "a.png", "anna"), stage, kind)
    html = report.to_html()
    page = Page(html)
    sources = [attributes.get("src") or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 6
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html
    assert report.summary in page.text
    for phrase in ("Keep it to yourself", "trained on photos protected this way", "already online"):
        assert phrase in page.text
    assert f"<h1>{TITLES[kind]}</h1>" in html


def test_hostile_names_stay_text(tmp_path: Path, stage: Stage) -> None:
    name = "<script>alert(1)<x onerror='b'>&\"\u202e\x1b.png"
    photo = write_photo(tmp_path / "a.png", "anna").rename(tmp_path / name.replace("/", "_"))
    reference = write_photo(tmp_path / "b.png", "anna").rename(tmp_path / "<img src=x>.png")
    report = protect(photo, method="negative", references=[reference]).report
    page = Page(report.to_html())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert sum(tag == "img" for tag, _ in page.tags) == 6
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "<i>thumbnail</i>" in page.text


def test_a_name_that_is_no_text_is_reported(tmp_path: Path, stage: Stage) -> None:
    photo = write_photo(tmp_path / "a.png", "anna").rename(tmp_path / "caf\udce9.png")
    report = protect(photo, method="negative").report
    report.to_html().encode()
    assert json.loads(report.to_json())["source"]["name"] == "caf\ufffd.png"


def test_conditions_keep_the_picture_and_change_something() -> None:
    pixels = np.asarray(Image.radial_gradient("L").convert("RGB"), dtype=np.float32) / 255
    for condition in CONDITIONS:
        received = condition.apply(pixels)
        assert received.dtype == np.float32
        assert 0 <= received.min() <= received.max() <= 1
        back = np.asarray(Image.fromarray((received * 255).astype(np.uint8)).resize((256, 256))) / 255
        assert np.abs(back - pixels).mean() < 0.06
        assert (condition.name == "saved") == (received is pixels)


def test_amplification_is_round_and_centred() -> None:
    original = np.full((20, 20, 3), 0.5, dtype=np.float32)
    saved = original.copy()
    saved[5:15, 5:15] += 8 / 255
    factor = amplification(original, saved)
    assert factor == 10 or factor == 20
    difference = amplified(original, saved, factor)
    assert difference[0, 0, 0] == 0.5
    assert 0.75 < difference[10, 10, 0] <= 1
