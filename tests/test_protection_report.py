from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.cloaking.report import Report
from bauta.cloaking.report_data import report_schema
from bauta.cloaking.report_page import _middle, amplification, amplified
from bauta.cloaking.verbs import protect, verify
from bauta.errors import UsageError
from bauta.judging.conditions import CONDITIONS
from bauta.schema import check
from protection_fakes import Stage, build_stage, write_photo

stage = pytest.fixture(build_stage)

SCHEMA = report_schema()


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
    exact = [attributes.get("href") or "" for tag, attributes in page.tags if tag == "image"]
    assert (len(sources), len(exact)) == (3, 2)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(source.startswith("data:image/webp;base64,") for source in exact)
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html
    assert report.summary in page.text
    for phrase in ("Keep it to yourself", "trained on photos protected this way", "already online"):
        assert phrase in page.text
    assert f"<h1>{TITLES[kind]}</h1>" in html


def test_a_face_is_shown_pixel_by_pixel_at_100_and_200_percent(tmp_path: Path, stage: Stage) -> None:
    report = make(write_photo(tmp_path / "a.png", "anna", "bert"), stage)
    page = Page(report.to_html())
    shown = [attributes for tag, attributes in page.tags if tag == "image"]
    boxes = [tuple(int(one[side] or 0) for side in ("width", "height")) for one in shown]
    sizes = [tuple(int(one[side] or 0) for side in ("width", "height")) for tag, one in page.tags
             if tag == "svg" and "aria-label" in one]  # fmt: skip
    assert len(shown) == 4
    assert sizes == [size for box in (boxes[:2], boxes[2:]) for zoom in (1, 2) for size in
                     [(width * zoom, height * zoom) for width, height in box]]  # fmt: skip
    for one, pixels in zip(shown[:2], (report.original, report.saved), strict=True):
        encoded = str(one["href"]).partition(",")[2]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
        whole = (pixels * 255).round().astype(np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(whole, picture.shape)
        assert (windows == picture).all((-3, -2, -1)).sum() == 1


def test_of_a_large_face_the_middle_is_shown() -> None:
    box, whole = _middle(np.array([10.2, 20, 2010, 1000], dtype=np.float32), 640)
    assert (box[2:] - box[:2]).tolist() == [640, 640]
    assert box.mean() == pytest.approx(np.mean([10, 20, 2010, 1000]), abs=1)
    assert not whole
    assert _middle(np.array([0, 0, 640, 640], dtype=np.float32), 640)[1]


def test_margins_are_shown(tmp_path: Path, stage: Stage) -> None:
    report = make(write_photo(tmp_path / "a.png", "anna"), stage)
    (face,) = report.to_dict()["faces"]
    margins = {row["judge"]: row["margin"] for row in face["comparisons"] if row["condition"] == "saved"}
    assert min(margins.values()) == face["margin"] == report.to_dict()["margin"]
    page = Page(report.to_html())
    for margin in margins.values():
        assert f"no match, {margin:.2f} below" in page.text


def test_hostile_names_stay_text(tmp_path: Path, stage: Stage) -> None:
    name = "<script>alert(1)<x onerror='b'>&\"\u202e\x1b.png"
    photo = write_photo(tmp_path / "a.png", "anna").rename(tmp_path / name.replace("/", "_"))
    reference = write_photo(tmp_path / "b.png", "anna").rename(tmp_path / "<img src=x>.png")
    report = protect(photo, method="negative", references=[reference]).report
    page = Page(report.to_html())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert sum(tag == "img" for tag, _ in page.tags) == 3
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
