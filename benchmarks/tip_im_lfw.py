"""TIP-IM on the genuine pairs of unaligned LFW photos, through the whole photo path, judged by unseen recognisers.

    python benchmarks/tip_im_lfw.py PHOTOS --rows default combined --output benchmarks/results

PHOTOS holds ``Person/Person_0001.jpg`` and ``genuine_pairs.txt`` (person, number, number). The first photo of a pair
is protected, encoded as its file would be, read back, changed by each condition, its face detected again, and
compared with the second, clean photo; `lossless` is what a PNG would keep. A pair counts for a judge that recognised
it before. Success is a similarity below the judge's stored threshold at FMR 1e-2. Intervals are bootstrapped by
person. Quality is measured on the bounding box of the ArcFace crop's footprint: of the mask on the photo's pixels,
and (`_saved`) of the written file, which has lost some more to JPEG; `psnr_detector_box` is that of the mask on the
detector's tighter box.

The recognisers of ``BAUTA_MODELS`` are needed. Every row is one JSON card; finished batches are kept under --work, so
an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bauta.cloaks.tip_im import TipImConfig

SURROGATES = ("foamliu_mobilefacenet", "xiaoccer_mobilefacenet_casia", "espdl_mfn", "pocketnet_s128")
JUDGES = ("dlib_resnet", "edgeface_xxs", "mobileface_v2", "espdl_mbf")
CONDITIONS = ("lossless", "saved", "jpeg-75", "half-size", "blur")
FMR = 1e-2
BATCH = 15


@dataclass(frozen=True)
class Row:
    """One line of the table: a configuration, its surrogates, and how many pairs it is run on (None: all)."""

    config: TipImConfig
    surrogates: tuple[str, ...] = SURROGATES
    pairs: int | None = None


def rows() -> dict[str, Row]:
    """The table. The curve and the faithful presets run on the first pairs only, to bound the time."""
    default = TipImConfig()
    table = {
        "default": Row(default),
        "combined": Row(TipImConfig(mode="combined", psnr=30.9, ssim=0.92), pairs=60),
        "install": Row(default, ("dlib_resnet", "chip_resnet", "mobilefacenet"), pairs=60),
        "dlib": Row(default, ("dlib_resnet",), pairs=60),
        "paper": Row(TipImConfig.paper(), SURROGATES[:1], pairs=30),
        "official-code": Row(TipImConfig.official_code(), SURROGATES[:1], pairs=30),
    }
    for psnr, ssim in ((29.0, 0.88), (31.0, 0.92), (33.0, 0.95), (35.0, 0.965), (37.0, 0.978)):
        table[f"curve-{psnr:g}"] = Row(TipImConfig(psnr=psnr, ssim=ssim), pairs=30)
    return table


def read_pairs(photos: Path) -> list[tuple[str, Path, Path]]:
    """(person, protected, reference) in the order of genuine_pairs.txt."""
    pairs = []
    for line in (photos / "genuine_pairs.txt").read_text(encoding="utf-8").splitlines():
        person, first, second = line.split("\t")
        pairs.append((person, *(photos / person / f"{person}_{int(n):04d}.jpg" for n in (first, second))))
    return pairs


@cache
def surrogate(name: str) -> Any:
    from bauta.recognizers import load_surrogate

    return load_surrogate(name)


@cache
def judge(name: str) -> Any:
    from bauta.recognizers import load_judge

    return load_judge(name)


def central_face(pixels: np.ndarray) -> Any:
    """The labelled person of an LFW photo is the one in its centre."""
    from bauta.faces.detection import detect_faces

    faces = detect_faces(pixels)
    if not len(faces):
        return None
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    middle = np.array([pixels.shape[1], pixels.shape[0]]) / 2
    return faces[[int(np.linalg.norm(centres - middle, axis=1).argmin())]]


def embed(name: str, pixels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    from bauta.faces.alignment import extract_crops

    crops = extract_crops(pixels, landmarks, judge(name).card.template)
    return judge(name).embed(crops)[0]


@cache
def target_embeddings(name: str, count: int) -> np.ndarray:
    from bauta.cloaks.targets import composite_faces
    from bauta.faces.alignment import extract_crops
    from bauta.faces.templates import ARCFACE_112

    points = np.asarray(ARCFACE_112.points, dtype=np.float32)[None]
    faces = composite_faces()[:count].permute(0, 2, 3, 1).numpy()
    crops = np.concatenate([extract_crops(face, points, judge(name).card.template) for face in faces])
    return judge(name).embed(crops)


def measure(task: tuple[Row, list[tuple[str, Path, Path]], int, Path]) -> list[dict[str, Any]]:
    """Protect and judge one batch; one record for each pair."""
    row, pairs, seed, cache_file = task
    if cache_file.exists():
        return json.loads(cache_file.read_text(encoding="utf-8"))
    import torch

    from bauta import metrics
    from bauta.cloaks.tip_im import TipIm
    from bauta.cloaks.view import cut_view
    from bauta.photo import read_photo
    from bauta.protection.conditions import CONDITIONS as ALL
    from bauta.protection.verification import cut, find_again, footprint

    torch.set_num_threads(1)
    applied = {condition.name: condition for condition in ALL}
    originals = [read_photo(first) for _, first, _ in pairs]
    faces = [central_face(photo.pixels) for photo in originals]
    records: list[dict[str, Any]] = [
        {"person": person, "protected": first.name, "reference": second.name, "found": face is not None}
        for (person, first, second), face in zip(pairs, faces, strict=True)
    ]
    kept = [index for index, face in enumerate(faces) if face is not None]
    placed = [cut_view(originals[i].pixels, faces[i].landmarks[0], grey=originals[i].grey) for i in kept]
    generator = torch.Generator().manual_seed(seed)
    masks = TipIm(row.config).perturb(
        [view for view, _ in placed], [surrogate(name) for name in row.surrogates], generator
    )
    for i, (_, placement), mask in zip(kept, placed, masks, strict=True):
        original, face, record = originals[i], faces[i], records[i]
        shape = original.pixels.shape
        masked = original.with_perturbation(placement.paste(mask.delta, shape[:2]))
        saved = read_photo(masked.encode())
        second = read_photo(pairs[i][2]).pixels
        other = central_face(second)
        box = footprint(face.landmarks[0])
        before, composed, after = (cut(photo.pixels, box) for photo in (original, masked, saved))
        record |= {
            "psnr": metrics.psnr(before, composed),
            "ssim": metrics.ssim(before, composed),
            "psnr_saved": metrics.psnr(before, after),
            "ssim_saved": metrics.ssim(before, after),
            "psnr_box": metrics.psnr(cut(original.pixels, face.boxes[0]), cut(masked.pixels, face.boxes[0])),
            "linf_saved": metrics.linf(before, after),
            "linf": float(mask.delta.abs().max()) * 255,
            "seconds": mask.seconds,
            "iterations": mask.iterations,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "before": {}, "self": {}, "after": {}, "target_before": {}, "target_after": {},
        }  # fmt: skip
        if other is None:
            record["found"] = False
            continue
        seen = {}
        for name in CONDITIONS:
            lossless = (masked.pixels * 255).round() / 255
            received = lossless if name == "lossless" else applied[name].apply(saved.pixels)
            present, landmarks = find_again(received, face, shape, thorough=False)
            seen[name] = received, landmarks
            record.setdefault("detected", {})[name] = bool(present[0])
        for name in JUDGES:
            source = embed(name, original.pixels, face.landmarks)
            reference = embed(name, second, other.landmarks)
            targets = target_embeddings(name, row.config.targets)
            record["before"][name] = float(source @ reference)
            record["target_before"][name] = float((targets @ source).max())
            for condition, (received, landmarks) in seen.items():
                found = embed(name, received, landmarks)
                record["after"].setdefault(condition, {})[name] = float(found @ reference)
                if condition == "saved":
                    record["self"][name] = float(found @ source)
                    record["target_after"][name] = float((targets @ found).max())
    cache_file.parent.mkdir(parents=True, exist_ok=True)
    part = cache_file.with_suffix(".part")
    part.write_text(json.dumps(records), encoding="utf-8")
    part.replace(cache_file)
    return records


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Means with 95 % intervals over all pairs that count."""
    from bauta import metrics
    from bauta.recognizers import find_card, threshold

    usable = [record for record in records if record["found"]]
    people = [record["person"] for record in usable]
    limits = {name: threshold(find_card(name), FMR).cosine for name in JUDGES}

    def interval(values: list[Any]) -> dict[str, float]:
        result = metrics.bootstrap_by_subject(np.array(values), people)
        return {"mean": round(result.mean, 4), "low": round(result.low, 4), "high": round(result.high, 4)}

    def dodging(condition: str, names: tuple[str, ...]) -> dict[str, float]:
        return interval(
            [
                [
                    float(record["after"][condition][name] < limits[name])
                    if record["before"][name] >= limits[name]
                    else np.nan
                    for name in names
                ]
                for record in usable
            ]
        )

    def mean_over_judges(key: str, *, above: bool) -> dict[str, float]:
        return interval([[(record[key][name] >= limits[name]) == above for name in JUDGES] for record in usable])

    return {
        "pairs": len(records),
        "usable": len(usable),
        "people": len(set(people)),
        "recognised_before": {
            name: sum(record["before"][name] >= limits[name] for record in usable) for name in JUDGES
        },
        "thresholds": limits,
        "dodging": {
            condition: {
                "mean": dodging(condition, JUDGES),
                "independent": dodging(condition, tuple(name for name in JUDGES if name != "dlib_resnet")),
                "judges": {name: dodging(condition, (name,)) for name in JUDGES},
            }
            for condition in CONDITIONS
        },
        "dodging_self": mean_over_judges("self", above=False),
        "impersonation": mean_over_judges("target_after", above=True),
        "impersonation_before": mean_over_judges("target_before", above=True),
        "detected_after": {
            condition: float(np.mean([record["detected"][condition] for record in usable])) for condition in CONDITIONS
        },
        "psnr": interval([record["psnr"] for record in usable]),
        "ssim": interval([record["ssim"] for record in usable]),
        "psnr_saved": interval([record["psnr_saved"] for record in usable]),
        "ssim_saved": interval([record["ssim_saved"] for record in usable]),
        "psnr_detector_box": interval([record["psnr_box"] for record in usable]),
        "linf": round(max(record["linf"] for record in usable), 2),
        "linf_saved": max(record["linf_saved"] for record in usable),
        "iterations": float(np.mean([record["iterations"] for record in usable])),
        "peak_memory_mib_per_process": max(record["peak_memory_mib"] for record in usable),
        "seconds_per_face": round(float(np.mean([record["seconds"] for record in usable])), 2),
    }


def digest_of(pairs: list[tuple[str, Path, Path]]) -> str:
    """SHA-256 of the photos of some pairs, in their order."""
    digest = hashlib.sha256()
    for _, first, second in pairs:
        digest.update(first.read_bytes())
        digest.update(second.read_bytes())
    return digest.hexdigest()


def provenance(command: str, row: Row, pairs: list[tuple[str, Path, Path]], seed: int) -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    import bauta
    from bauta.recognizers import find_card

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    code = hashlib.sha256()
    for path in sorted(Path(bauta.__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return {
        "commit": commit,
        "sha256_of_code": code.hexdigest(),
        "command": command,
        "seed": seed,
        "config": row.config.to_dict(),
        "surrogates": {name: find_card(name).sha256 for name in row.surrogates},
        "judges": {name: find_card(name).sha256 for name in JUDGES},
        "data": {"name": "lfw_photos_250", "sha256_of_pairs": digest_of(pairs)},
        "fmr": FMR,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rows", nargs="+", default=["default"], choices=list(rows()))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--work", type=Path, default=Path("out/tip_im_lfw"))
    parser.add_argument("--pairs", type=int, help="run on the first PAIRS pairs only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--surrogates", nargs="+", help="attack these instead of the row's; needs --name")
    parser.add_argument("--name", help="what to call the card of a row with other surrogates")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if bool(options.surrogates) != bool(options.name) or (options.name and len(options.rows) != 1):
        parser.error("--surrogates and --name go together, with one row")
    everything = read_pairs(options.photos)
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for name in options.rows:
            row = rows()[name]
            command = f"python benchmarks/tip_im_lfw.py PHOTOS --rows {name} --seed {options.seed}"
            if options.pairs:
                command += f" --pairs {options.pairs}"
            if options.surrogates:
                row, name = replace(row, surrogates=tuple(options.surrogates)), options.name
                command += f" --surrogates {' '.join(row.surrogates)} --name {name}"
            pairs = everything[: options.pairs or row.pairs]
            origin = provenance(command, row, pairs, options.seed)
            same = {name: value for name, value in origin.items() if name not in ("commit", "command", "data")}
            key = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]
            batches = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]
            tasks = [
                (row, batch, options.seed, options.work / key / f"{digest_of(batch)[:16]}.json") for batch in batches
            ]
            began, records = time.monotonic(), []
            for done, batch in enumerate(pool.imap(measure, tasks), 1):
                records += batch
                spent = time.monotonic() - began
                left = spent / done * (len(tasks) - done)
                print(
                    f"\r{name}: {len(records)}/{len(pairs)}, {left / 60:.0f} min left",
                    end="",
                    file=sys.stderr,
                )
            summary = summarise(records)
            card = {"schema": "bauta.benchmark/1", "name": f"tip-im-lfw/{name}"}
            card |= origin | {"results": summary}
            options.output.mkdir(parents=True, exist_ok=True)
            path = options.output / f"tip-im-lfw-{name}.json"
            path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
            saved = summary["dodging"]["saved"]
            worst = min(values["mean"] for values in saved["judges"].values())
            print(
                f"\r{name}: dodging {saved['mean']['mean']:.3f} (worst judge {worst:.3f}), impersonation "
                f"{summary['impersonation']['mean']:.3f}, PSNR {summary['psnr']['mean']:.2f} dB, SSIM "
                f"{summary['ssim']['mean']:.3f}, {summary['seconds_per_face']} s per face -> {path}"
            )


if __name__ == "__main__":
    main()
