"""README and docs are true: snippets run, commands parse, links lead somewhere, tables are those of the cards."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer
from PIL import Image, ImageOps
from typer.exceptions import TyperException

from bauta import errors
from bauta.cli import run
from bauta.cli.app import EPILOG, app
from bauta.cli.configuration import defaults
from bauta.cli.run import INTERRUPTED
from bauta.cloaking.outcomes import FRAGILE, SERIOUSNESS, WEAK, outcome_schema, verdict_code
from bauta.cloaking.report_data import SCHEMA, report_schema
from bauta.cloaks.makeup import Makeup
from bauta.cloaks.p3_mask import P3Mask
from bauta.cloaks.spatial import Spatial
from bauta.cloaks.tip_im import TipIm
from bauta.judging.conditions import CONDITIONS
from bauta.judging.findings import FRAGILE_CONDITIONS, Finding, FindingKind
from bauta.recognizers.cards import parse_card
from bauta.registry import METHODS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
STEPS = 2  # of the optimisation: snippets show how to call, not how well it works

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documentation is not part of an installation")


def blocks(document: Path, language: str) -> list[str]:
    found = FENCE.findall(document.read_text(encoding="utf-8"))
    return [content for name, content in found if name == language]


def inline_code(document: Path) -> list[str]:
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def named(documents: list[Path]) -> list[Any]:
    return [pytest.param(document, id=document.name) for document in documents]


# Snippets


def few_steps(configured: Callable[..., Any], *given: Any, **by: Any) -> Any:
    return replace(configured(*given, **by), iterations=STEPS)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files that snippets speak of, and a fresh install's recognisers; masks take few steps."""
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    folder = tmp_path_factory.mktemp("snippets")
    portrait = Image.fromarray(data.astronaut()).resize((256, 256), Image.Resampling.LANCZOS)
    portrait.save(folder / "photo.jpg", quality=92)
    (folder / "holidays").mkdir()
    portrait.crop((0, 0, 192, 192)).save(folder / "holidays" / "beach.jpg", quality=92)
    for name in ("me.jpg", "another_photo_of_me.jpg"):
        ImageOps.mirror(portrait).save(folder / name, quality=92)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BAUTA_MODELS", raising=False)
        patch.setenv("BAUTA_HOME", str(folder / "home"))
        for cloak in (Makeup, P3Mask, Spatial, TipIm):
            few = partial(few_steps, cloak.configured)
            patch.setattr(cloak, "configured", few)
        patch.chdir(folder)
        assert run(["protect", "photo.jpg", "-o", "protected"]) in (0, WEAK, FRAGILE)
        yield folder


@pytest.mark.parametrize("document", named([path for path in DOCUMENTS if blocks(path, "python")]))
def test_the_python_of_a_document_runs_from_top_to_bottom(
    document: Path, furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(furnished, tmp_path / "folder"))
    module = ModuleType(document.stem)  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, document.stem, module)
    for number, source in enumerate(blocks(document, "python"), 1):
        exec(compile(source, f"{document.name}, block {number}", "exec", dont_inherit=True), vars(module))


def test_the_reports_that_documents_name_are_written(furnished: Path) -> None:
    report = json.loads((furnished / "protected/reports/photo.report.json").read_text(encoding="utf-8"))
    assert report["schema"] == SCHEMA
    assert (furnished / "protected/reports/photo.report.html").is_file()
    assert (furnished / "protected/.bauta/photo.jpg.json").is_file()


@pytest.mark.parametrize("document", named([path for path in DOCUMENTS if blocks(path, "toml")]))
def test_cards_in_a_document_are_cards(document: Path, tmp_path: Path) -> None:
    filled_in = {"schema": 1, "format": "onnx", "weights": "model.onnx", "sha256": "0" * 64}
    for text in blocks(document, "toml"):
        if "[protect]" in text:
            (tmp_path / "bauta.toml").write_text(text, encoding="utf-8")
            assert defaults(typer.main.get_command(app), tmp_path / "bauta.toml", {})
        else:
            parse_card(text, folder=tmp_path, origin=document.name, defaults=filled_in)


# Commands


def command_lines() -> list[Any]:
    found = []
    for document in DOCUMENTS:
        lines = [line for block in blocks(document, "sh") for line in block.splitlines()]
        for words in (
            shlex.split(line, comments=True) for line in (*lines, *inline_code(document)) if "bauta " in line
        ):
            if words and Path(words[0]).name == "bauta":
                found += [pytest.param(choice, id=" ".join(choice)) for choice in spelled_out(words[1:])]
    return found


def options() -> list[Any]:
    codes = sorted({code for document in DOCUMENTS for code in inline_code(document) if code.startswith("--")})
    return [pytest.param(choice, id=" ".join(choice)) for code in codes for choice in spelled_out(code.split())]


def spelled_out(words: list[str]) -> list[list[str]]:
    """``--mode a|b`` is two command lines."""
    return [list(choice) for choice in itertools.product(*(word.split("|") for word in words))]


def parse(arguments: list[str]) -> None:
    """Resolve a command and parse its arguments, all but running it; a bare name is a mention of the command."""
    command: Any = typer.main.get_command(app)
    context = None
    while arguments or context is None:
        context = command.make_context(command.name, list(arguments), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def commands(group: Any, *path: str) -> Iterator[tuple[list[str], Any]]:
    """Every command below a group that is none, with its path."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield [*path, name], command.of_method() if hasattr(command, "of_method") else command


@pytest.mark.parametrize("arguments", command_lines())
def test_a_documented_command_line_is_understood(arguments: list[str]) -> None:
    parse(arguments)


@pytest.mark.parametrize("words", options())
def test_a_documented_option_exists(words: list[str]) -> None:
    owners = [
        [
            *path,
            *(
                word
                for parameter in command.params
                if parameter.required and words[0] not in parameter.opts
                for word in (["x"] if parameter.param_type_name == "argument" else [parameter.opts[0], "x"])
            ),
        ]
        for path, command in commands(typer.main.get_command(app))
        if any(words[0] in parameter.opts for parameter in command.params)
    ]
    assert owners, f"no command has {words[0]}"
    if len(words) > 1:
        parse([*owners[0], *words])


def test_the_parser_used_here_refuses_what_does_not_exist() -> None:
    for wrong in (["protect", "photo.jpg", "--nonsense"], ["recognizers", "nonsense"], ["protect", "--mode", "x", "a"]):
        with pytest.raises(TyperException):
            parse(wrong)


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_documented_make_targets_exist(document: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [line for block in blocks(document, "sh") for line in block.splitlines()] + inline_code(document)
    for target in (line.split()[1] for line in lines if re.match(r"make \w", line)):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


# Links and paths


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_links_lead_somewhere(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:|mailto:", link)]
    assert [link for link in links if not leads_somewhere(document, link)] == []


def leads_somewhere(document: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_source_files_that_are_named_exist(document: Path) -> None:
    paths = [code for code in inline_code(document) if re.fullmatch(r"[\w/]+/\w+\.py", code) and "your_" not in code]
    assert [path for path in paths if not any((base / path).is_file() for base in (ROOT, ROOT / "src/bauta"))] == []


def test_every_document_is_linked_from_the_readme() -> None:
    readme = DOCUMENTS[0].read_text(encoding="utf-8")
    assert [path.name for path in DOCUMENTS[1:] if f"](docs/{path.name}" not in readme] == []


# Facts


def test_the_result_tables_are_those_of_the_cards() -> None:
    specification = importlib.util.spec_from_file_location("render", ROOT / "benchmarks/render.py")
    assert specification is not None
    assert specification.loader is not None
    render = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(render)
    for document in render.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert render.render(text) == text, "run: python benchmarks/render.py"
    for name, picture in render.PICTURES.items():
        assert (render.PICTURE_FOLDER / f"{name}.svg").read_text(encoding="utf-8") == picture()


def test_every_method_is_named_in_the_page_of_its_kind() -> None:
    pages = {
        "cloak": "README.md",
        "purifier": "docs/adaptive-attackers.md",
        "attacker": "docs/adaptive-attackers.md",
        "protector": "docs/templates.md",
        "cancelable": "docs/cancelable.md",
    }
    for card in METHODS.values():
        page = "docs/benchmark.md" if card.kind == "cloak" and card.reference else pages[card.kind]
        assert f"`{card.name}`" in (ROOT / page).read_text(encoding="utf-8")


def kinds_of_error() -> dict[str, int]:
    kinds = [errors.BautaError, *errors.BautaError.__subclasses__()]
    own = {kind.__name__: kind.exit_code for kind in kinds if "exit_code" in vars(kind)}
    assert set(own.values()) == {kind.exit_code for kind in errors.every_error()}
    return own


def test_exit_codes_are_documented_as_they_are() -> None:
    codes = sorted({0, WEAK, FRAGILE, INTERRUPTED, *kinds_of_error().values()})
    assert sorted(SERIOUSNESS) == codes
    readme = DOCUMENTS[0].read_text(encoding="utf-8")
    sentence = re.search(r"^Exit codes: (.+?)\n\n", readme, re.DOTALL | re.MULTILINE)
    assert sentence is not None
    assert sorted(map(int, re.findall(r"(?:^|, )(\d+) ", " ".join(sentence[1].split())))) == codes
    guide = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (?:`(\w+)`)? *\|$", guide, re.MULTILINE)
    assert sorted(int(code) for code, _ in rows) == codes
    assert {name: int(code) for code, name in rows if name} == kinds_of_error()


@pytest.mark.parametrize("text", [pytest.param(EPILOG, id="--help"), pytest.param("docs/report.md", id="report.md")])
def test_the_order_of_seriousness_is_documented_as_it_is(text: str) -> None:
    if text.endswith(".md"):
        text = (ROOT / text).read_text(encoding="utf-8")
    order = re.search(r"the most serious wins[^\d]*((?:\d+, )+\d+)", text)
    assert order is not None
    assert tuple(map(int, order[1].split(", "))) == SERIOUSNESS


def fields(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Every field of a JSON schema by path; a list that may have any length is followed by ``[]``."""
    for option in schema.get("anyOf", [schema]):
        many = option.get("type") == "array" and "maxItems" not in option
        inside = option["items"] if many else option
        here = f"{path}[]" if many else path
        if here:
            yield here
        for name, inner in inside.get("properties", {}).items():
            yield from fields(inner, f"{here}.{name}".lstrip("."))


def test_every_field_of_the_report_is_documented_and_no_other() -> None:
    guide = (ROOT / "docs/report.md").read_text(encoding="utf-8").partition("## report.json")[2]
    rows = re.findall(r"^\| (`[^|]+`) \|", guide, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} == set(fields(report_schema()))


def test_verdicts_are_documented_with_their_exit_codes() -> None:
    guide = (ROOT / "docs/report.md").read_text(encoding="utf-8").partition("## Exit codes")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \|$", guide, re.MULTILINE)
    verdicts = report_schema()["properties"]["verdict"]["enum"]
    assert {verdict: int(code) for verdict, code in rows} == {verdict: verdict_code(verdict) for verdict in verdicts}


def test_what_protect_prints_is_documented() -> None:
    guide = (ROOT / "docs/protecting.md").read_text(encoding="utf-8").partition("## For programs")[2]
    rows = re.findall(r"^\| (`[^|]+`) \|", guide.partition("## Defaults")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == set(outcome_schema()["properties"])


def test_kinds_of_finding_are_documented_with_what_they_force() -> None:
    guide = (ROOT / "docs/report.md").read_text(encoding="utf-8").partition("## Findings")[2].partition("##")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| `(\w+)`[^|]* \|$", guide, re.MULTILINE)
    conditions = {"match-under-condition": "half-size"}
    kinds = get_args(FindingKind)
    assert dict(rows) == {kind: Finding(kind, condition=conditions.get(kind)).forces for kind in kinds}


def test_fragile_conditions_are_documented_as_they_are() -> None:
    assert {condition.name for condition in CONDITIONS} > FRAGILE_CONDITIONS
    guide = " ".join((ROOT / "docs/report.md").read_text(encoding="utf-8").split())
    assert "JPEG 95 or 75, halved in size or screenshotted" in guide
    assert {"jpeg-95", "jpeg-75", "half-size", "screenshot"} == FRAGILE_CONDITIONS
