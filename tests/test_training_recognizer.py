"""Training a recogniser from a recipe: networks, targets, resuming, and the file that ships."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bauta.errors import MissingExtra, NumericalFailure, RoleRefused, UsageError, WeightsCorrupt
from bauta.recognizers.cards import ROLES, parse_card, read_card
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import load_surrogate
from bauta.training.augmentation import Augmentation
from bauta.training.distillation import (
    _Batches,
    distil,
    embed_by_teacher,
    joint_targets,
    loss_terms,
    noisy,
    populate,
    turned,
    worst_case,
)
from bauta.training.export import ship, to_onnx
from bauta.training.networks import FAMILIES, build_network
from bauta.training.recipes import Recipe, read_recipe
from bauta.training.recognizer import collect_faces, train_recognizer
from bauta.training.starts import MEAN, STARTS, STD, Start, module_tensors, take_start
from recognizer_builders import CARD, linear_model

pytest.importorskip("lightning_fabric")

PEOPLE = ("Ada_One", "Bo_Two", "Cy_Three", "Di_Four")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order, so that equal runs end equal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four people with three pictures each, two teachers, and a list that excludes one person."""
    random = np.random.default_rng(0)
    folder = tmp_path / "data"
    for person in PEOPLE:
        own = random.integers(60, 200, (7, 7, 3))
        (folder / "faces" / person).mkdir(parents=True)
        for number in range(3):
            coarse = (own + random.integers(-30, 30, own.shape)).astype(np.uint8)
            picture = Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC)
            picture.save(folder / "faces" / person / f"{number}.png")
    (folder / "pairs.txt").write_text("1\t1\nDi_Four\t1\t2\nNobody\t1\tElse\t2\n", encoding="utf-8")
    monkeypatch.setenv("BAUTA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BAUTA_MODELS", raising=False)
    from hashlib import sha256

    for seed, name in enumerate(("first", "second")):
        content = linear_model(seed=seed)
        place = tmp_path / "home" / "recognizers" / name
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(content)
        text = CARD.replace("0" * 64, sha256(content).hexdigest()).replace('"mine"', f'"{name}"')
        (place / "card.toml").write_text(text, encoding="utf-8")
    return folder


RECIPE = Recipe(
    name="student",
    family="plain",
    teachers=("first", "second"),
    sources=("faces",),
    exclude=("pairs.txt",),
    dim=16,
    epochs=4,
    batch=4,
    blends=1.0,
    adversarial=2.0,
)


@pytest.mark.parametrize(
    ("family", "size"), [("resnet", 150), ("mobilefacenet", 112), ("plain", 112), ("convnext", 128)]
)
def test_families_differ_and_export(family: str, size: int) -> None:
    network = build_network(family, 24).eval()
    assert network(torch.rand(2, 3, size, size)).shape == (2, 24)
    assert family in FAMILIES
    if family == "convnext":  # the widest choice of operators; the exporter takes seconds
        to_onnx(network, size)  # compares the answers itself


def test_resnet_starts_from_dlib() -> None:
    started, own = build_network("resnet", 128, start="dlib"), load_surrogate("dlib_resnet")
    chips = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        started.head.weight.copy_(own.network.head.weight)
        embeddings = torch.nn.functional.normalize(started((chips - MEAN) / STD))
        torch.testing.assert_close(embeddings, own(chips), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="cannot start"):
        build_network("plain", 24, start="dlib")
    with pytest.raises(UsageError, match="No family"):
        build_network("transformer", 24)


class _Foreign(torch.nn.Sequential):
    """A class that the reader of a checkpoint does not know."""


class _Thief:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def _saved(content: object, *, new: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("new", [False, True])
def test_a_checkpoint_is_read_and_not_run(tmp_path: Path, new: bool) -> None:
    module = _Foreign(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.PReLU(4))
    wanted = [tensor for tensor in module.state_dict().values() if tensor.dim()]
    for found, tensor in zip(module_tensors(_saved(module, new=new)), wanted, strict=True):
        assert torch.equal(found, tensor)
    taken = tmp_path / "taken"
    for content in (_Thief(taken), torch.nn.Sequential(module, _holder(_Thief(taken)))):
        with pytest.raises(WeightsCorrupt, match=r"Not a module|holds"):
            list(module_tensors(_saved(content, new=new)))
    with pytest.raises(WeightsCorrupt, match="Not a module"):
        list(module_tensors(b"PK nothing"))
    assert not taken.exists()


def _holder(content: object) -> torch.nn.Module:
    module = torch.nn.Module()
    module._parameters["stolen"] = content  # type: ignore[assignment]
    return module


def test_a_start_is_shipped_as_it_is_without_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    own = build_network("plain", 16)
    other = build_network("plain", 16).state_dict()
    tensors = [tensor for tensor in other.values() if tensor.dim()]
    monkeypatch.setitem(STARTS, "mine", Start("plain", lambda: tensors, "ten thousand faces", "CC0-1.0"))
    recipe = Recipe(name="started", family="plain", start="mine", dim=16, epochs=0)
    card = train_recognizer(recipe, tmp_path, tmp_path / "work", tmp_path / "out")
    assert (card.training_set, card.terms) == ("ten thousand faces", "CC0-1.0")
    assert read_card(tmp_path / "out" / "started.toml").training["start"] == "mine"
    take_start(own, "mine")
    assert torch.equal(own.state_dict()["0.weight"], tensors[0])
    for wrong in ([tensors[1]], [*tensors, tensors[0]]):
        monkeypatch.setitem(STARTS, "mine", Start("plain", lambda wrong=wrong: wrong, "-", "-"))
        with pytest.raises(WeightsCorrupt, match="mine has"):
            build_network("plain", 16, start="mine")
    with pytest.raises(UsageError, match="start"):
        replace(recipe, start="nothing")


class _Small(torch.nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 16, stride=16), torch.nn.BatchNorm2d(4))
        self.head = torch.nn.Linear(4, dim)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.head(self.features(image).mean((2, 3)))
        return embedding


def test_frozen_features_stay_as_they_started(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [tensor.clone() for tensor in _Small(16).features.state_dict().values() if tensor.dim()]
    monkeypatch.setitem(FAMILIES, "mobilenet", _Small)
    monkeypatch.setitem(STARTS, "mine", Start("mobilenet", lambda: tensors, "-", "-"))
    recipe = replace(RECIPE, family="mobilenet", start="mine", frozen=True, adversarial=0.0)
    population = populate(collect_faces(recipe, data, tmp_path / "faces"), 0.0, 0)
    network, _ = distil(recipe, population, tmp_path / "run")
    learned = [tensor for tensor in network.features.state_dict().values() if tensor.dim()]
    assert all(torch.equal(found, start) for found, start in zip(learned, tensors, strict=True))
    open_network, _ = distil(replace(recipe, frozen=False), population, tmp_path / "open")
    assert not torch.equal(open_network.features[0].weight, tensors[0])


@pytest.mark.parametrize(
    "change",
    [
        {"family": "x"}, {"teachers": ()}, {"sources": ()}, {"roles": ("thief",)}, {"roles": ()}, {"start": "vgg"},
        {"frozen": True}, {"crop": "wide"}, {"size": 8}, {"zoom": 3.0}, {"dim": 2}, {"epochs": -1}, {"batch": 1},
        {"rate": 0}, {"warmup": 1.0}, {"decay": -1}, {"blends": -0.1}, {"relations": -1}, {"adversarial": 99},
        {"noise": 2}, {"features": 1.0}, {"keep_statistics": True},
    ],
)  # fmt: skip
def test_recipes_refuse_what_makes_no_sense(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(change))):
        replace(RECIPE, **change)


def test_recipes_are_read_from_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "a"\nfamily = "plain"\nteachers = ["t"]\nsources = ["s"]\nepochs = 3\n', encoding="utf-8")
    assert read_recipe(str(path)) == Recipe(name="a", family="plain", teachers=("t",), sources=("s",), epochs=3)
    for text, message in (("nme = 1", "unknown key"), ("name = ", "cannot be read"), ('name = "a"', "needed|missing")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            read_recipe(str(path))
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe("nothing-of-the-kind")


def test_shipped_recipes_are_valid_and_no_judge_of_the_benchmark_teaches() -> None:
    from importlib.resources import files

    names = [entry.name for entry in (files("bauta.training") / "recipes").iterdir() if entry.name.endswith(".toml")]
    assert names
    for name in names:
        recipe = read_recipe(name.removesuffix(".toml"))
        assert recipe.name == name.removesuffix(".toml")
        assert not {"edgeface_xxs", "mobileface_v2", "espdl_mbf"} & set(recipe.teachers)
        if recipe.epochs:  # a start that ships as it is learns from nobody
            assert "lfw_112/pairs.txt" in recipe.exclude
            assert "cfp_112/list_name.txt" in recipe.exclude


def test_template_is_the_arcface_crop_enlarged_about_its_centre() -> None:
    assert replace(RECIPE, size=112).template.name == "arcface-112"
    points = np.array(replace(RECIPE, size=224).template.points)
    plain = np.array(RECIPE.template.points)
    assert np.allclose(points, (plain + 0.5) * 2 - 0.5, atol=1e-3)


def test_excluded_people_are_not_learned(data: Path, tmp_path: Path) -> None:
    faces = collect_faces(RECIPE, data, tmp_path / "work")
    assert set(faces.people) == set(PEOPLE[:3])
    with pytest.raises(UsageError, match="missing"):
        collect_faces(replace(RECIPE, sources=("elsewhere",)), data, tmp_path / "work")
    with pytest.raises(UsageError, match="missing"):
        collect_faces(replace(RECIPE, exclude=("elsewhere.txt",)), data, tmp_path / "work")


def test_teachers_embeddings_are_kept_and_continued(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    population = populate(collect_faces(RECIPE, data, tmp_path / "work"), 1.0, 0)
    whole = np.array(embed_by_teacher(population, "first", tmp_path / "one"))
    assert whole.shape == (18, 8)
    monkeypatch.setattr("bauta.training.distillation.CHUNK", 5)

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 10:
            raise Stop

    with pytest.raises(Stop):
        embed_by_teacher(population, "first", tmp_path / "two", progress=stop)
    seen: list[int] = []
    again = embed_by_teacher(population, "first", tmp_path / "two", progress=lambda _, done, __: seen.append(done))
    assert seen == [15, 18]
    assert np.allclose(again, whole, atol=1e-6)


def test_joint_targets_keep_the_mean_cosine() -> None:
    random = np.random.default_rng(0)
    embeddings = [random.standard_normal((50, width)).astype(np.float32) for width in (6, 9)]
    embeddings = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in embeddings]
    targets, kept = joint_targets(embeddings, 15)
    assert kept == pytest.approx(1)
    assert np.allclose(targets @ targets.T, sum(one @ one.T for one in embeddings) / 2, atol=1e-5)
    padded, _ = joint_targets(embeddings, 20)
    assert padded.shape == (50, 20)
    fewer, kept = joint_targets(embeddings, 4)
    assert 0.2 < kept < 0.9
    assert np.allclose(np.linalg.norm(fewer, axis=1), 1, atol=1e-5)


def test_loss_is_zero_at_the_target_whatever_the_length() -> None:
    targets = torch.nn.functional.normalize(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    distance, relations = loss_terms(3 * targets, targets)
    assert float(distance) == pytest.approx(0, abs=1e-6)
    assert float(relations) == pytest.approx(0, abs=1e-6)
    assert float(loss_terms(-targets, targets)[0]) == pytest.approx(2, abs=1e-6)


def test_worst_case_is_bounded_and_worse() -> None:
    network = build_network("plain", 16).eval()
    generator = torch.Generator().manual_seed(0)
    images = 0.2 + 0.6 * torch.rand(8, 3, 112, 112, generator=generator)
    with torch.no_grad():
        targets = torch.nn.functional.normalize(network((images - 0.5) / 0.5) + 0.1, dim=1)
    moved = worst_case(network, images, targets, 4 / 255, generator)
    rms = (moved - images).square().mean((1, 2, 3)).sqrt()
    assert float(rms.max()) <= 4 / 255 + 1e-6
    assert 0 < int((rms > 0).sum()) < 8
    with torch.no_grad():
        before, after = (loss_terms(network((one - 0.5) / 0.5), targets)[0] for one in (images, moved))
    assert after > before


def test_batches_depend_on_nothing_but_seed_and_step(data: Path, tmp_path: Path) -> None:
    population = populate(collect_faces(RECIPE, data, tmp_path / "work"), 1.0, 0)
    first, second = (_Batches(population, np.arange(18), RECIPE, Augmentation()) for _ in range(2))
    assert len(first) == 16
    second[3]
    for one, other in zip(first[5], second[5], strict=True):
        assert torch.equal(one, other)
    epoch = [set(first[step][1].tolist()) for step in range(4)]
    assert len(set.union(*epoch)) == 16


def test_training_learns_resumes_and_ships(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=8, rate=5e-2, decay=0.0, adversarial=0.0)
    plain = Augmentation.none()
    population = populate(collect_faces(recipe, data, tmp_path / "faces"), recipe.blends, recipe.seed)
    whole, figures = distil(recipe, population, tmp_path / "whole", save_every=0, augmentation=plain)
    lines = (tmp_path / "whole" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == figures["steps"] == 32
    distances = [json.loads(line)["distance"] for line in lines]
    assert np.mean(distances[-4:]) < 0.85 * np.mean(distances[:4])

    class Stop(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 11:
            raise Stop

    with pytest.raises(Stop):
        distil(recipe, population, tmp_path / "broken", save_every=0, augmentation=plain, progress=stop)
    resumed, _ = distil(recipe, population, tmp_path / "broken", augmentation=plain)
    for name, value in whole.state_dict().items():
        assert torch.allclose(value.float(), resumed.state_dict()[name].float(), atol=1e-5), name
    with pytest.raises(UsageError, match="another recipe"):
        distil(replace(recipe, rate=1e-3), population, tmp_path / "broken")


def test_noise_is_drawn_for_each_image_and_repeats() -> None:
    images = torch.full((200, 3, 16, 16), 0.5)
    drawn = [noisy(images, 0.25, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*drawn)
    spread = (drawn[0] - images).flatten(1).std(1)
    assert 0 <= spread.min() < 0.02 < 0.23 < spread.max() < 0.27
    assert float(spread.mean()) == pytest.approx(0.125, abs=0.015)


def test_targets_are_turned_to_the_network_and_keep_their_cosines() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 3, 112, 112, generator=generator)
    network = build_network("plain", 16).eval()
    with torch.no_grad():
        own = torch.nn.functional.normalize(network((images - MEAN) / STD), dim=1)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    found = turned(own @ rotation, network, lambda index: images[index], 40)
    assert torch.allclose(found, own, atol=1e-4)
    assert torch.allclose(found @ found.T, own @ own.T, atol=1e-4)


def test_a_student_under_noise_keeps_its_statistics_and_resumes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = build_network("mobilefacenet", 16).state_dict()
    tensors = [tensor.clone() for tensor in started.values() if tensor.dim()]
    monkeypatch.setitem(STARTS, "mine", Start("mobilefacenet", lambda: tensors, "-", "-"))
    recipe = replace(RECIPE, family="mobilefacenet", start="mine", noise=0.25, epochs=3, adversarial=0.0)
    recipe = replace(recipe, features=0.5, keep_statistics=True)
    population = populate(collect_faces(recipe, data, tmp_path / "faces"), 0.0, 0)
    whole, _ = distil(recipe, population, tmp_path / "whole")

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "training" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(recipe, population, tmp_path / "broken", save_every=0, progress=stop)
    resumed, _ = distil(recipe, population, tmp_path / "broken")
    for name, value in whole.state_dict().items():
        assert torch.allclose(value.float(), resumed.state_dict()[name].float(), atol=1e-5), name
    assert not torch.equal(whole[0].weight, started["0.weight"])
    without, _ = distil(replace(recipe, features=0.0), population, tmp_path / "without")
    assert not torch.equal(whole[0].weight, without[0].weight)
    for name, value in without.state_dict().items():  # of the noise, from before the first step
        if name.endswith(("running_mean", "running_var")):
            assert torch.equal(value, whole.state_dict()[name])
            assert not torch.equal(value, started[name])
    assert not any(layer._forward_hooks for layer in whole)


def test_worst_cases_are_found_in_mixed_precision(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning_fabric

    make = lightning_fabric.Fabric

    def mixed(**settings: object) -> object:  # what a machine with a GPU takes
        return make(**{**settings, "accelerator": "cpu", "precision": "bf16-mixed"})

    monkeypatch.setattr(lightning_fabric, "Fabric", mixed)
    population = populate(collect_faces(RECIPE, data, tmp_path / "faces"), 0.0, 0)
    _, figures = distil(replace(RECIPE, epochs=1), population, tmp_path / "run")
    assert figures["steps"] > 0


def test_what_fails_the_check_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def embed(self, crops: np.ndarray) -> np.ndarray:
            return np.eye(len(crops), 16, dtype=np.float32)

    monkeypatch.setattr("bauta.training.export.load_judge", lambda card: Other())
    with pytest.raises(NumericalFailure, match="cosine"):
        ship(build_network("plain", 16).eval(), RECIPE, {"faces": 1, "people": 1}, tmp_path / "out")
    assert not list(tmp_path.rglob("student*"))


def test_another_preprocessing_asks_the_teacher_again(data: Path, tmp_path: Path) -> None:
    population = populate(collect_faces(RECIPE, data, tmp_path / "work"), 0.0, 0)
    before = np.array(embed_by_teacher(population, "first", tmp_path / "one"))
    path = tmp_path / "home" / "recognizers" / "first" / "card.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('"RGB"', '"BGR"'), encoding="utf-8")
    assert not np.allclose(embed_by_teacher(population, "first", tmp_path / "one"), before, atol=1e-3)


def test_one_command_from_faces_to_a_shipped_file(data: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    card = train_recognizer(
        replace(RECIPE, epochs=1),
        data,
        tmp_path / "work",
        tmp_path / "out",
        progress=lambda stage, done, total: stages.append(stage),
    )
    assert dict.fromkeys(stages) == dict.fromkeys(["teacher first", "teacher second", "training"])
    assert read_card(tmp_path / "out" / "student.toml") == card
    assert card.roles == {"surrogate"}
    assert card.training["teachers"] == ("first", "second")
    assert card.training["people"] == 3
    crops = np.random.default_rng(0).random((2, 3, 112, 112), dtype=np.float32)
    judged = load_judge(replace(card, roles=ROLES)).embed(crops)
    attacked = load_surrogate(card)(torch.from_numpy(crops)).numpy()
    assert np.abs(judged - attacked).max() < 1e-4
    assert parse_card((tmp_path / "out" / "student.toml").read_text(encoding="utf-8"), folder=tmp_path / "out") == card


def test_who_is_attacked_learns_from_no_judge(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RoleRefused, match="'mobilenet' may not be used as a surrogate: its card says judge only"):
        train_recognizer(replace(RECIPE, teachers=("first", "mobilenet")), data, tmp_path / "work", tmp_path / "out")
    assert not (tmp_path / "work").exists()


def test_a_missing_package_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"onnxscript.*bauta\[train\]"):
        train_recognizer(RECIPE, tmp_path / "nothing", tmp_path / "work", tmp_path / "out")
    assert not (tmp_path / "work").exists()
