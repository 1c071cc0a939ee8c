from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bauta.cloaking import batch
from bauta.cloaking.outcomes import Outcome, exit_code
from bauta.cloaking.places import collect, plan
from bauta.cloaking.records import scratch_folder
from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.errors import OutputError, UsageError
from protection_fakes import FAINT, NEGATIVE, REPORTS, Negative, build_stage, files, read_json, work, write_photo

stage = pytest.fixture(build_stage)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files(folder)}


@pytest.mark.usefixtures("stage")
class TestOneFolder:
    def test_outputs_lie_side_by_side(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        (outcome,) = work("in/a.png")
        assert files() == ["a.png", *REPORTS]
        assert (outcome.verdict, outcome.exit_code, outcome.judges, outcome.matching) == (
            "protected",
            0,
            2,
            0,
        )
        assert read_json(Path("out/reports/a.report.json"))["output"]["name"] == "a.png"

    def test_without_reports_only_the_photo(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        work("in/a.png", reports=False)
        assert files() == ["a.png"]

    def test_folders_keep_their_inner_paths(self, folder: Path) -> None:
        for name in ("in/a.png", "in/deep/er/a.png", "in/deep/b.png"):
            write_photo(Path(name), "anna")
        work("in", reports=False)
        assert files() == ["a.png", "deep/b.png", "deep/er/a.png"]

    def test_names_that_meet_keep_their_folders(self, folder: Path) -> None:
        write_photo(Path("one/a.png"), "anna")
        write_photo(Path("two/a.png"), "bert")
        work("one/a.png", "two/a.png", reports=False)
        assert files() == ["one/a.png", "two/a.png"]

    def test_a_later_source_of_the_same_name_takes_a_number(self, folder: Path) -> None:
        write_photo(Path("one/a.png"), "anna")
        write_photo(Path("two/a.png"), "bert")
        work("one/a.png")
        before = hashes(Path("out"))
        work("two/a.png")
        assert files()[:3] == ["a-2.png", "a.png", "reports/a-2.report.html"]
        assert before.items() <= hashes(Path("out")).items()
        assert [outcome.skipped for outcome in (*work("one/a.png"), *work("two/a.png"))] == [True, True]

    def test_photos_of_one_stem_do_not_share_a_report(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        write_photo(Path("in/a.webp"), "bert", lossless=True)
        work("in")
        assert files() == [
            "a.png", "a.webp", "reports/a.png.report.html", "reports/a.png.report.json",
            "reports/a.webp.report.html", "reports/a.webp.report.json",
        ]  # fmt: skip

    def test_photos_of_one_stem_may_be_made_at_once(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_photo(Path("in/a.png"), "anna")
        write_photo(Path("in/a.webp"), "bert", lossless=True)
        both = threading.Barrier(2, timeout=30)
        real = Negative.edit

        def edit(self, views, work):  # type: ignore[no-untyped-def]
            both.wait()
            made = real(self, views, work)
            both.wait()
            return made

        def at_once(workshop, tasks, jobs, finished):  # type: ignore[no-untyped-def]
            with ThreadPoolExecutor(jobs) as threads:
                return list(threads.map(workshop.protect, tasks))

        monkeypatch.setattr(Negative, "edit", edit)
        monkeypatch.setattr(batch, "_in_processes", at_once)
        outcomes = work("in", jobs=2)
        assert [outcome.exit_code for outcome in outcomes] == [0, 0]
        for outcome in outcomes:
            assert outcome.output
            assert outcome.report
            assert read_json(outcome.report.with_suffix(".json"))["output"]["name"] == outcome.output.name

    def test_reports_of_others_are_kept(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        Path("out/reports").mkdir(parents=True)
        for name in ("a.report.json", "a.png.report.html"):
            Path("out/reports", name).write_text("mine")
        (outcome,) = work("in")
        assert outcome.report == Path("out/reports/a.png-2.report.html")
        kept = [Path("out/reports", name).read_text() for name in ("a.report.json", "a.png.report.html")]
        assert kept == ["mine", "mine"]
        assert work("in")[0].skipped

    def test_reports_of_an_earlier_product_go(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        work("in")
        work("in", reports=False)
        assert files() == ["a.png"]
        work("in")
        Path("out/reports/a.report.html").write_text("mine")
        work("in", reports=False)
        assert files() == ["a.png", "reports/a.report.html"]
        assert work("in", reports=False)[0].skipped

    @pytest.mark.parametrize("moved", [1, 2, 3])
    def test_a_kill_between_the_moves_leaves_nothing_old(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, moved: int
    ) -> None:
        write_photo(Path("in/a.png"), "anna")
        work("in")
        real, left = Path.replace, [moved]

        def replace(self: Path, target: Path) -> Path:
            if not self.parent.name.startswith("part-"):
                return real(self, target)
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(self, target)

        other = ProtectSettings(method="negative", options=(("amount", 0.01),))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(KeyboardInterrupt):
                work("in", settings=other)
        (outcome,) = work("in", settings=other)
        assert not outcome.skipped
        assert files() == [*REPORTS, "weak/a.png"]
        report = read_json(Path("out/reports/a.report.json"))
        assert report["output"]["sha256"] == hashes(Path("out"))["weak/a.png"]
        assert work("in", settings=other)[0].skipped

    def test_what_a_killed_run_left_is_removed_and_live_work_is_not(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        left = write_photo(Path("out/.bauta/part-1/a.png"), "anna").parent
        program = (
            "import os, sys; from pathlib import Path; from bauta.cloaking.records import scratch_folder\n"
            "with scratch_folder(Path('out')) as place: (place / 'face').touch(); os._exit(9)"
        )
        subprocess.run([sys.executable, "-c", program], check=False)
        (killed,) = (path for path in Path("out/.bauta").iterdir() if path.is_dir() and path != left)
        assert (killed / "face").is_file()
        with scratch_folder(Path("out")) as alive:
            (alive / "face").touch()
            work("in")
            assert (alive / "face").is_file()
        assert [place.exists() for place in (left, killed, alive)] == [False, False, False]
        assert files(Path("out/.bauta"), hidden=True) == ["a.png.json"]

    @pytest.mark.parametrize("length", [247, 250, 255])
    def test_long_names(self, folder: Path, length: int) -> None:
        names = ["ü" * 120 + "x" * (length - 245) + f"{last}.png" for last in "yz"]
        for name in names:
            write_photo(Path("in", name), "anna")
        outcomes = work("in")
        assert [outcome.exit_code for outcome in outcomes] == [0, 0]
        assert len(files()) == 6
        assert all(outcome.skipped for outcome in work("in"))
        Path("out", names[0]).write_bytes(b"precious")
        assert [outcome.exit_code for outcome in work("in")] == [0, 0]
        assert Path("out", names[0]).read_bytes() == b"precious"
        assert max(len(os.fsencode(Path(name).name)) for name in files(hidden=True)) <= 255

    def test_finished_photos_are_skipped(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        first = work("in")[0]
        Negative.calls.clear()
        again = work("in")[0]
        assert Negative.calls == []
        assert again.skipped
        assert (again.verdict, again.output, again.psnr) == (first.verdict, first.output, first.psnr)

    def test_weak_photos_stay_weak_when_skipped(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        weak = ProtectSettings(method="negative", options=(("amount", 0.01),))
        assert [work("in", settings=weak)[0].exit_code for _ in range(2)] == [7, 7]

    @pytest.mark.parametrize("change", ["source", "settings", "product gone", "report gone", "record broken"])
    def test_what_changed_is_done_again(self, folder: Path, change: str) -> None:
        source = write_photo(Path("in/a.png"), "anna")
        work("in")
        settings = NEGATIVE
        if change == "source":
            write_photo(source, "bert")
        elif change == "settings":
            settings = ProtectSettings(method="negative", seed=5)
        elif change == "product gone":
            Path("out/a.png").unlink()
        elif change == "report gone":
            Path("out/reports/a.report.html").unlink()
        else:
            Path("out/.bauta/a.png.json").write_text("{", encoding="utf-8")
        (outcome,) = work("in", settings=settings)
        assert not outcome.skipped
        # A product without a record may be anybody's.
        assert outcome.output == Path("out/a-2.png" if change == "record broken" else "out/a.png")

    def test_a_product_that_somebody_changed_is_kept(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        work("in", reports=False)
        Path("out/a.png").write_bytes(b"precious")
        work("in", reports=False)
        assert Path("out/a.png").read_bytes() == b"precious"
        assert files() == ["a-2.png", "a.png"]

    def test_foreign_files_and_links_in_the_output_folder_are_kept(self, folder: Path) -> None:
        source = write_photo(Path("in/a.png"), "anna")
        kept = write_photo(Path("elsewhere.png"), "cleo").read_bytes()
        Path("out/reports").mkdir(parents=True)
        Path("out/a.png").symlink_to(Path("elsewhere.png").absolute())
        Path("out/reports/a.report.html").write_text("mine")
        original = source.read_bytes()
        work("in")
        assert Path("elsewhere.png").read_bytes() == kept
        assert Path("out/reports/a.report.html").read_text() == "mine"
        assert source.read_bytes() == original
        assert "a-2.png" in files()

    def test_products_are_no_sources(self, folder: Path) -> None:
        write_photo(Path("a.png"), "anna")
        work(".", reports=False)
        assert len(work(".", reports=False)) == 1
        assert files() == ["a.png"]

    @pytest.mark.parametrize("named", ["new", "n*/*.png", "."])
    def test_what_is_named_in_the_output_folder_is_a_source(self, folder: Path, named: str) -> None:
        write_photo(Path("photos/new/deep/a.png"), "anna")
        write_photo(Path("photos/new/b.png"), "bert")
        sources, failures = collect([Path("photos") / named], Path("photos"))
        assert "b.png" in {source.name for source, _ in sources}
        assert failures == []

    def test_products_beside_named_sources_are_no_sources(self, folder: Path) -> None:
        write_photo(Path("out/new/a.png"), "anna")
        assert work("out/new")[0].output == Path("out/a.png")
        sources, failures = collect([Path("out")], Path("out"))
        assert [source for source, _ in sources] == [Path("out/new/a.png")]
        assert failures == []

    def test_products_alone_are_refused(self, folder: Path) -> None:
        write_photo(Path("in/deep/a.png"), "anna")
        work("in", reports=False)
        for named in (Path("out/deep"), Path("out")):
            sources, (failure,) = collect([named], Path("out"))
            assert sources == []
            assert failure.exit_code == 2
            assert "taken for a product" in failure.message

    def test_output_into_the_folder_of_the_originals_is_refused(self, folder: Path) -> None:
        source = write_photo(Path("out/a.png"), "anna")
        original = source.read_bytes()
        (outcome,) = work("out/a.png")
        assert outcome.exit_code == 5
        assert "original" in outcome.message
        assert source.read_bytes() == original

    def test_one_bad_photo_stops_nothing(self, folder: Path) -> None:
        for index in range(3):
            write_photo(Path(f"in/good{index}.png"), "anna")
        Path("in/empty.png").touch()
        Path("in/text.jpg").write_text("no photo")
        good = Path("in/good0.png").read_bytes()
        Path("in/cut.png").write_bytes(good[: len(good) // 2])
        write_photo(Path("in/nobody.png"))
        Path("in/lost.png").symlink_to("nowhere.png")
        outcomes = work("in", reports=False)
        assert files() == ["good0.png", "good1.png", "good2.png"]
        assert sorted(outcome.exit_code for outcome in outcomes) == [0, 0, 0, 3, 4, 4, 4, 4]
        assert exit_code(outcomes) == 4
        assert all(outcome.message and outcome.hint for outcome in outcomes if outcome.exit_code)

    def test_a_defect_in_one_photo_stops_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_photo(Path("in/a.png"), "anna")
        write_photo(Path("in/b.png"), "bert")
        real = Negative.edit

        def edit(self, views, work):  # type: ignore[no-untyped-def]
            if len(Negative.calls) == 0:
                Negative.calls.append(0)
                raise ZeroDivisionError("oops")
            return real(self, views, work)

        monkeypatch.setattr(Negative, "edit", edit)
        outcomes = work("in")
        assert [outcome.exit_code for outcome in outcomes] == [1, 0]
        assert "ZeroDivisionError: oops" in outcomes[0].message

    def test_names_of_every_kind(self, folder: Path) -> None:
        names = [
            "übung ñ 写真.png",
            "two  words.png",
            "caf\udce9.png",
            "-o.png",
            "[1].png",
            "a.b.c.png",
            "'\"$x.png",
        ]
        Path("in").mkdir()
        for name in names:
            write_photo(Path("plain.png"), "anna").rename(Path("in") / name)
        outcomes = work("in")
        assert {outcome.exit_code for outcome in outcomes} == {0}
        assert {outcome.output.name for outcome in outcomes if outcome.output} == set(names)

    def test_a_mislabelled_photo_gets_its_true_ending_too(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna").rename("in/a.jpg")
        write_photo(Path("in/a.png"), "anna").rename("in/noending")
        work("in/a.jpg", "in/noending", reports=False)
        assert files() == ["a.jpg.png", "noending.png"]

    def test_links_to_one_photo_are_one_photo(self, folder: Path) -> None:
        write_photo(Path("in/a.png"), "anna")
        Path("in/b.png").symlink_to("a.png")
        Path("in/loop").symlink_to(".")
        assert len(work("in")) == 1

    def test_dots_in_a_path_lead_nothing_out_of_the_output_folder(self, folder: Path) -> None:
        for name in ("one/a.png", "a.png"):
            write_photo(Path(name), name)
        Path("two").mkdir()
        outcomes = work("one/a.png", "two/../a.png", reports=False)
        assert [outcome.exit_code for outcome in outcomes] == [0, 0]
        assert len(files()) == 2
        assert all(outcome.output and ".." not in outcome.output.parts for outcome in outcomes)

    def test_products_are_no_sources_under_another_spelling(self, folder: Path) -> None:
        write_photo(Path("a.png"), "anna")
        Path("two").mkdir()
        work(".", reports=False)
        sources, _ = collect([Path()], Path("two/../out"))
        assert [source.name for source, _ in sources] == ["a.png"]
        assert len(sources) == 1

    @pytest.mark.parametrize(
        ("name", "settings"), [("a.png", NEGATIVE), ("weak/a.png", FAINT), ("reports/a.report.json", NEGATIVE)]
    )
    def test_a_file_that_appears_meanwhile_is_kept(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: ProtectSettings
    ) -> None:
        write_photo(Path("in/a.png"), "anna")
        real = Negative.edit

        def edit(self, views, work):  # type: ignore[no-untyped-def]
            Path("out", name).parent.mkdir(exist_ok=True)
            Path("out", name).write_bytes(b"precious")
            return real(self, views, work)

        monkeypatch.setattr(Negative, "edit", edit)
        (outcome,) = work("in", settings=settings)
        assert (outcome.exit_code, Path("out", name).read_bytes()) == (5, b"precious")
        assert files() == [name]
        assert "appeared" in outcome.message

    def test_a_partly_protected_photo_leaves_with_seven(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_photo(Path("in/a.png"), "anna")
        monkeypatch.setattr("bauta.cloaking.report.Report.verdict", "partial")
        assert [(outcome.verdict, outcome.exit_code) for outcome in work("in")] == [("partial", 7)]

    def test_a_box_belongs_to_one_photo(self, folder: Path) -> None:
        for name in ("a", "b"):
            write_photo(Path(f"in/{name}.png"), "anna")
        settings = ProtectSettings(method="negative", selection=Selection(boxes=((0, 20, 112, 112),)))
        with pytest.raises(UsageError, match="one photo"):
            work("in", settings=settings)

    def test_no_jobs(self, folder: Path) -> None:
        with pytest.raises(UsageError, match="0 jobs"):
            work(write_photo(Path("a.png"), "anna"), jobs=0)

    def test_the_output_folder_is_a_file(self, folder: Path) -> None:
        Path("out").write_text("")
        with pytest.raises(OutputError, match="Cannot write to the output folder"):
            work(write_photo(Path("a.png"), "anna"))

    def test_the_output_folder_is_read_only(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(batch.tempfile, "TemporaryFile", refuse)
        with pytest.raises(OutputError, match="Permission denied"):
            work(write_photo(Path("a.png"), "anna"))

    def test_a_full_disk_is_reported_and_leaves_nothing(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        write_photo(Path("in/a.png"), "anna")
        monkeypatch.setattr(os, "fsync", full)
        (outcome,) = work("in")
        assert outcome.exit_code == 5
        assert "No space left" in outcome.message
        assert files(hidden=True) == []

    def test_an_interruption_leaves_no_half_file(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_photo(Path("in/a.png"), "anna")

        def interrupt(*args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("bauta.cloaking.report.Report.to_html", interrupt)
            with pytest.raises(KeyboardInterrupt):
                work("in")
        assert files(hidden=True) == []
        assert work("in")[0].output == Path("out/a.png")

    def test_an_unreadable_folder_is_reported(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_photo(Path("in/a.png"), "anna")
        Path("in/locked").mkdir()
        real = os.scandir

        def scandir(path: str | Path = ".") -> object:
            if str(path).endswith("locked"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        outcomes = work("in")
        assert sorted(outcome.exit_code for outcome in outcomes) == [0, 4]


def test_exit_codes_are_ordered() -> None:
    def code(*codes: int) -> int:
        return exit_code([Outcome(Path(), exit_code=number) for number in codes])

    assert code() == 0
    assert code(0, 0) == 0
    assert code(0, 8) == 8
    assert code(8, 7) == 7
    assert code(7, 3) == 3
    assert code(3, 4, 7) == 4
    assert code(4, 5, 6) == 6
    assert code(6, 1) == 1
    assert code(99) == 1


def test_plans_give_every_photo_its_own_place() -> None:
    def places(*sources: tuple[str, str]) -> list[str]:
        return [str(task.relative) for task in plan([(Path(source), Path(root)) for source, root in sources])]

    assert places(("/x/a.png", "/x"), ("/x/a.png", "/x")) == ["a.png"]
    assert places(("/x/a.png", "/x"), ("/y/a.png", "/y")) == ["x/a.png", "y/a.png"]
    assert places(("/p/x/a.png", "/p/x"), ("/q/x/a.png", "/q/x")) == ["p/x/a.png", "q/x/a.png"]
    assert places(("/a.png", "/"), ("/y/a.png", "/y")) == ["a.png", "y/a.png"]
    assert places(("/x/a.png", "/x"), ("/x/A.png", "/x")) == ["a.png", "A-2.png"]
    assert places(("/x/s/a.png", "/x"), ("/y/a.png", "/y")) == ["s/a.png", "a.png"]


def test_plans_know_whose_stems_meet() -> None:
    def meeting(*names: str) -> list[str]:
        return [task.source.name for task in plan([(Path("/x", name), Path("/x")) for name in names]) if task.meets]

    assert meeting("a.png", "b.png", "deep/a.jpg", "noending") == []
    assert meeting("a.png", "b.png", "A.jpg", "deep/a.jpg") == ["a.png", "A.jpg"]
    assert meeting("a.jpg", "a.jpg.png") == ["a.jpg.png"]
