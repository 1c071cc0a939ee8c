"""Verdicts follow from findings, sentences from findings, and nothing from sentences."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import bauta
from bauta.cloaking.outcomes import verdict_code
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.report import Report
from bauta.cloaking.report_data import report_schema
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaking.verbs import protect
from bauta.judging import words
from bauta.judging.conditions import CONDITIONS
from bauta.judging.findings import VERDICTS, Finding, FindingKind, Verdict, decide
from bauta.judging.verification import Comparison, JudgeWithThresholds, find, weigh
from bauta.photo import read_photo
from protection_fakes import Stage, build_stage, write_photo

stage = pytest.fixture(build_stage)

PACKAGE = Path(bauta.__file__).parent


def row(judge: str = "one", condition: str = "saved", after: float = 0.2, **changes: Any) -> Comparison:
    values = {"attacked": False, "against": "original", "before": None, "matched_before": None}
    values |= {"matches_at": 0.01 if after >= 0.5 else None, "limit": 0.5, "margin": 0.5 - after}
    return Comparison(judge=judge, condition=condition, after=after, **{**values, **changes})


def judge(name: str = "one", *, attacked: bool = False, calibrated: bool = True) -> JudgeWithThresholds:
    class Card:
        pass

    card, engine = Card(), Card()
    card.name = name  # type: ignore[attr-defined]
    engine.card = card  # type: ignore[attr-defined]
    return JudgeWithThresholds(engine, attacked, {0.01: object()} if calibrated else {})  # type: ignore[arg-type, dict-item]


def found(*rows: Comparison, judges: tuple[JudgeWithThresholds, ...] = (judge(),)) -> list[Finding]:
    return find(weigh(rows, 0.01), judges, 0.01, 1)


class TestVerdicts:
    def test_without_a_match_an_independent_judge_confirms(self) -> None:
        findings = found(row(), row(condition="jpeg-75"))
        assert findings == []
        assert decide(findings) == "protected"

    def test_a_match_in_the_saved_file_is_weak_with_its_margin(self) -> None:
        (match,) = found(row(after=0.75), row(condition="jpeg-75", after=0.7))
        assert (match.kind, match.judge, match.cosine, match.limit, match.fmr) == ("match", "one", 0.75, 0.5, 0.01)
        assert match.margin == -0.25
        assert decide([match]) == "weak"

    @pytest.mark.parametrize("condition", [condition.name for condition in CONDITIONS[1:]])
    def test_what_no_shared_photo_escapes_makes_it_fragile(self, condition: str) -> None:
        (finding,) = found(row(), row(condition=condition, after=0.6))
        assert (finding.kind, finding.condition) == ("match-under-condition", condition)
        assert decide([finding]) == ("protected" if condition in ("jpeg-50", "blur") else "fragile")

    @pytest.mark.parametrize("judges", [(judge(attacked=True),), (judge(calibrated=False),), ()])
    def test_absence_of_a_match_counts_from_an_independent_judge_only(
        self, judges: tuple[JudgeWithThresholds, ...]
    ) -> None:
        assert decide(found(row(), judges=judges)) == "unconfirmed"

    def test_a_match_counts_from_an_attacked_judge_too(self) -> None:
        asked = (judge(attacked=True),)
        assert decide(found(row(after=0.6, attacked=True), judges=asked)) == "weak"
        fragile = found(row(attacked=True), row(condition="half-size", after=0.6, attacked=True), judges=asked)
        assert decide(fragile) == "fragile"

    def test_references_count_for_a_judge_that_knew_them(self) -> None:
        known = row(against="me.jpg", before=0.8, matched_before=0.01)
        unknown = row(against="other.jpg", before=0.1, after=0.9)
        assert found(row(after=0.9), known, unknown) == []
        assert [finding.against for finding in found(row(after=0.9), unknown)] == ["original"]
        by_two = weigh([row(after=0.9), known, row("two"), row("two", against="me.jpg", before=0.1)], 0.01)
        assert [one.counts for one in by_two] == [False, True, True, False]

    def test_one_finding_for_each_judge_and_condition(self) -> None:
        names = ("a.jpg", "b.jpg")
        rows = [row(condition=condition, against=name, before=0.8, matched_before=0.01, after=after)
                for condition, after in (("saved", 0.1), ("blur", 0.6)) for name in names]  # fmt: skip
        rows[-1] = replace(rows[-1], after=0.7, margin=-0.2)
        (finding,) = found(*rows)
        assert (finding.against, finding.cosine) == ("b.jpg", 0.7)

    def test_every_kind_forces_a_verdict_and_the_worst_counts(self) -> None:
        kinds = [Finding(kind, condition="half-size") for kind in get_args(FindingKind)]
        assert {finding.forces for finding in kinds} == set(VERDICTS)
        assert decide(kinds) == "weak"
        assert decide([]) == "protected"
        assert decide([Finding("search-limited", reason="time"), Finding("no-independent-judge")]) == "partial"
        assert [verdict_code(verdict) for verdict in VERDICTS] == [0, 0, 8, 7, 7]


@pytest.fixture
def report(tmp_path: Path, stage: Stage) -> Report:
    photo = write_photo(tmp_path / "all.png", "anna", "bert", "cleo")
    return protect(photo, method="negative").report


class TestReports:
    def test_a_limited_search_is_not_protected(self, report: Report) -> None:
        assert report.verdict == "protected"
        limited = replace(report, limits=("time", "turned"))
        assert limited.verdict == "partial"
        data = limited.to_dict()
        assert data["search_limits"] == ["time", "turned"]
        assert [finding["reason"] for finding in data["findings"]] == ["time", "turned"]
        assert "its time was up" in limited.summary
        assert "Not every face is covered" in limited.to_html()

    def test_what_others_find_out_decides_too(self, report: Report) -> None:
        embedded = Finding("embedded-picture-match", face=2, judge="judge_one", cosine=0.9, limit=0.5, margin=-0.4)
        weak = replace(report, further=(embedded,))
        assert (weak.verdict, weak.to_dict()["protects_against"]) == ("weak", [])
        assert "judge_one still recognises face 2 (top right) in a picture embedded" in weak.summary
        bare = replace(report, further=(Finding("unprotected-face-elsewhere", box=(1, 2, 41, 42)),))
        assert bare.verdict == "partial"
        assert "40 × 40 pixels at 1, 2" in bare.warnings[0]

    def test_a_fragile_photo_says_what_undoes_it_and_where(self, report: Report) -> None:
        fragile = _with(report, 1, Finding("match-under-condition", face=2, judge="judge_one", condition="half-size"))
        assert fragile.verdict == "fragile"
        assert (
            "once it is reduced to half its size, face 2 (top right) is recognised again. A higher" in fragile.summary
        )
        assert fragile.warnings == [
            "Once the photo is reduced to half its size, face 2 (top right) is recognised again by judge_one."
        ]
        page = fragile.to_html()
        assert '<section class="verdict fragile">' in page
        assert "<h1>Fragile: protected until the photo is changed</h1>" in page

    def test_only_what_was_measured_on_this_photo_is_promised(self, report: Report) -> None:
        matching = replace(report.faces[0].verification.comparisons[0], condition="screenshot", matches_at=0.01)
        answer = report.faces[0].verification
        face = replace(report.faces[0], verification=replace(answer, comparisons=(*answer.comparisons, matching)))
        changed = replace(report, faces=(face, *report.faces[1:])).to_dict()
        assert {one["name"]: one["matched_by"] for one in changed["conditions"]}["screenshot"] == ["judge_one"]
        assert "screenshot" in " ".join(report.to_dict()["protects_against"])
        assert "screenshot" not in " ".join(changed["protects_against"])
        assert "half its size" in " ".join(changed["protects_against"])

    def test_faces_are_named_by_number_and_place(self, report: Report) -> None:
        assert report.names == {1: "face 1 (top left)", 2: "face 2 (top right)", 3: "face 3 (bottom left)"}
        left_alone = replace(report, faces=report.faces[:1], spared=[report.faces[1].box], unprotected=[[0, 0, 9, 9]])
        assert [(finding.kind, finding.face) for finding in left_alone.findings] == [
            ("face-without-mask", 2),
            ("face-left-alone", 3),
        ]
        assert left_alone.warnings[1] == "Face 3 (top right) was left as it is."

    def test_advice_is_given_where_it_can_help(self, tmp_path: Path, report: Report) -> None:
        def advice(**asked: str) -> str:
            photo = read_photo(write_photo(tmp_path / "a.png", "anna"))
            faint = ProtectSettings(method="negative", options=(("amount", 0.01),), **asked)  # type: ignore[arg-type]
            return replace(Pipeline(replace(faint, fallback="none")).protect(photo), settings=faint).summary

        better = "a fallback (blur or pixelate)"
        assert advice().endswith(f"Try a higher strength or {better}, or do not share this photo.")
        assert advice(strength="high").endswith(f"Try {better}, or do not share this photo.")
        assert advice(strength="high", fallback="blur").endswith("photo. Do not share this photo.")


def _with(report: Report, index: int, finding: Finding) -> Report:
    faces = list(report.faces)
    answer = replace(faces[index].verification, findings=(finding,), verdict=decide([finding]))
    faces[index] = replace(faces[index], verification=answer)
    return replace(report, faces=tuple(faces))


class TestWords:
    @pytest.mark.parametrize("kind", get_args(FindingKind))
    def test_every_kind_has_a_sentence_for_one_and_for_many(self, kind: FindingKind) -> None:
        values: dict[str, Any] = {"judge": "one", "against": "original", "condition": "jpeg-75", "cosine": 0.6}
        values |= {"limit": 0.5, "margin": -0.1, "fmr": 0.01, "matches_at": 0.001}
        findings = [Finding(kind, face=number, **values) for number in range(1, 10)]
        names = {number: f"face {number}" for number in range(1, 10)}
        for count in (1, 2, 9):
            for sentence in words.sentences(findings[:count], names):
                assert sentence.endswith(".")
                assert sentence[0].isupper() or sentence.startswith("one")
                assert "None" not in sentence
        assert max(map(len, words.sentences(findings, names))) < 250

    def test_places(self) -> None:
        boxes = {(0, 0, 10, 10): "top left", (45, 45, 55, 55): "centre", (90, 45, 99, 55): "right"}
        assert {box: words.place(box, 100, 100) for box in boxes} == boxes

    @pytest.mark.parametrize("verdict", VERDICTS)
    def test_every_verdict_has_its_words(self, verdict: Verdict) -> None:
        assert words.HEADLINES[verdict]
        assert words.CHIPS[verdict].lower() == verdict


# Nothing is derived from a sentence.

TEXTS = {
    "summary",
    "warnings",
    "reasons",
    "message",
    "hint",
    "protects_against",
    "does_not_protect_against",
    "sentence",
}
LOOKS = {"startswith", "endswith", "split", "partition", "rpartition", "find", "index", "match", "search", "fullmatch"}
LOOKS |= {"count", "removeprefix", "removesuffix", "splitlines"}


def inspections(tree: ast.AST) -> Iterator[str]:
    """Where code looks into a text: a comparison with it, a search in it, or a method that takes it apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            looked_at = [side for side, operator in zip(sides[1:], node.ops, strict=True)
                         if isinstance(operator, ast.In | ast.NotIn)]  # fmt: skip
            looked_at += sides if any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops) else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOKS:
            looked_at = [node.func.value, *node.args]
        else:
            continue
        for part in looked_at:
            names = {one.attr for one in ast.walk(part) if isinstance(one, ast.Attribute)}
            names |= {one.id for one in ast.walk(part) if isinstance(one, ast.Name)}
            if names & TEXTS:
                yield ast.unparse(node)


@pytest.mark.parametrize("folder", ["judging", "cloaking", "cli"])
def test_no_module_looks_into_a_text(folder: str) -> None:
    modules = [path for path in (PACKAGE / folder).glob("*.py") if path.name != "words.py"]
    assert modules
    assert {path.name: found for path in modules if (found := list(inspections(ast.parse(path.read_text()))))} == {}


def test_the_search_for_such_looks_finds_them() -> None:
    for code in ("reason.split(' ')[0] in report.summary", "face.reasons[0].startswith(name)", "report.summary == 'x'",
                 "re.search('still', outcome.message)"):  # fmt: skip
        assert list(inspections(ast.parse(code)))


def test_other_words_change_no_result(tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def reports() -> Iterator[Report]:
        for kind, amount in (("weak", 0.01), ("good", 1.0), ("half", 0.3)):
            photo = write_photo(tmp_path / f"{kind}.png", "anna", "bert")
            for references in ([], [photo]):
                yield protect(photo, method="negative", options={"amount": amount}, references=references).report

    def results() -> list[tuple[Any, ...]]:
        return [(report.verdict, verdict_code(report.verdict), report.recognised_by, _without_texts(report.to_dict()))
                for report in reports()]  # fmt: skip

    before = results()
    for name, function in inspect.getmembers(words, inspect.isfunction):
        if function.__module__ != words.__name__ or name.startswith("_"):
            continue
        text = inspect.signature(function).return_annotation
        other: Any = {"str": "Xyzzy.", "list[str]": ["Xyzzy."]}.get(text)
        if other is not None:
            monkeypatch.setattr(words, name, lambda *args, other=other, **options: other)
    monkeypatch.setattr(words, "face_names", lambda boxes, *size: dict.fromkeys(range(1, len(boxes) + 1), "xyzzy"))
    for name in ("HEADLINES", "CHIPS"):
        monkeypatch.setattr(words, name, dict.fromkeys(VERDICTS, "xyzzy"))
    assert results() == before
    assert {verdict for verdict, *_ in before} >= {"weak", "protected"}
    assert next(reports()).summary == "Xyzzy."


def _without_texts(data: dict[str, Any]) -> dict[str, Any]:
    texts = {"summary", "warnings", "protects_against", "does_not_protect_against", "created", "seconds"}
    faces = [
        {key: value for key, value in face.items() if key not in ("name", "reasons", "warnings", "mask")}
        for face in data["faces"]
    ]
    return {**{key: value for key, value in data.items() if key not in texts}, "faces": faces}


def test_the_schema_names_every_verdict_and_every_kind() -> None:
    properties = report_schema()["properties"]
    assert properties["verdict"]["enum"] == list(VERDICTS)
    assert properties["findings"]["items"]["properties"]["kind"]["enum"] == list(get_args(FindingKind))
