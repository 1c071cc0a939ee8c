"""Do recognisers and the detector err more on some groups of people than on others?

    python benchmarks/groups.py DATA

Reads DATA/cfp_112, DATA/lfw_photos_250, DATA/demo and, for the names of people who were trained on, the other folders
of aligned faces. Writes ``groups.json`` into --output, without pictures.

Two sources of groups. CFP's 500 public people are men and women as they are publicly known; whose name is also in a
training set is left out. The synthetic portraits are grouped as their maker named them: one face each, so that only
false matches can be counted, and none of them is a real person's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.benchmark.engine.cards import code, machine
from bauta.faces.alignment import extract_crops
from bauta.faces.crops import retemplate_pixels
from bauta.faces.detection import detect_faces
from bauta.metrics import bootstrap_by_subject
from bauta.recognizers.calibration import threshold
from bauta.recognizers.cards import ROLES, RecognizerCard
from bauta.recognizers.catalog import find_card
from bauta.recognizers.judges import load_judge
from face_detection import matches, skimage_pictures
from face_scenes import DEVELOPMENT_PICTURES, Pasted, read, tiled

Pixels = NDArray[np.float32]
RECOGNIZERS = ("mobilenet", "mobilefacenet", "chip_resnet")
FMR = 1e-2  # of the verdicts
EACH = 4  # frontal photos of a person
SIZES = (40, 48, 60, 80, 120)  # pixels, of the whole portrait, which the face fills
ANGLES = (0, 0, 0, 0, 45, 90, 135, 180, 225, 270, 315)
SCENES = 2  # of a group
HEIGHT, WIDTH, LATTICE = 1080, 1440, 180  # pixels of a scene, and between the middles of portraits

GROUPS = {
    "ma": "men", "wo": "women", "B": "Black", "E": "East Asian", "I": "Indian", "L": "Latino", "M": "Middle Eastern",
    "P": "Pacific islander", "S": "Southeast Asian", "W": "white",
}  # fmt: skip

# The women among CFP's people, as they are publicly known; the others are men.
WOMEN = """
Aishwarya Rai; Alex Morgan; Alicia Keys; Allyson Felix; Alyson Hannigan; Alyssa Milano; Amanda Seyfried; Amber Heard;
Amy Adams; Ana Ivanovic; Angela Merkel; Angelina Jolie; Anne Hathaway; Annika Sorenstam; Anushka Sharma; Ariana Grande;
Audrey Hepburn; Aung San Suu Kyi; Avril Lavigne; Barbara Streisand; Benazir Bhutto; Betty White; Beyonce; Bipasha Basu;
Britney Spears; Candace Parker; Carmen Electra; Caroline Wozniacki; Cate Blanchett; Catherine Zeta; Charlize Theron;
Chris Evert; Christina Aguilera; Claire Mccaskill; Cobie Smulders; Condoleezza Rice; Cristina Fernandez De Kir;
Danica Patrick; Deepika Padukone; Demi Moore; Diane Feinstein; Diane Kruger; Dianna Agron; Dilma Roussef;
Drew Barrymore; Elizabeth Taylor; Elizabeth Warren; Emilia Clarke; Emma Stone; Emma Watson; Eva Longoria;
Garbine Muguruza; Gisele Bundchen; Gwen Stefani; Gwyneth Paltrow; Halle Berry; Heidi Klum; Helen Mirren;
Hillary Clinton; Hillary Swank; Hina Rabbani Khar; Hope Solo; Ingrid Bergman; Jackie Joyner Kersee; Jeanne Shaheen;
Jenn Suhr; Jennifer Anniston; Jennifer Capriarti; Jennifer Lawrence; Jennifer Lopez; Jennifer Love Hewitt;
Jessica Alba; Jessica Ennis; Jessica Lange; Jessica Simpson; Jodie Foster; Judi Dench; Judy Garland; Julia Gillard;
Julia Roberts; Kajol; Kara Goucher; Kareena Kapoor; Kate Middleton; Kate Moss; Kate Upton; Kate Winslet;
Katherine Heigl; Katrina Kaif; Katy Perry; Kay Hagan; Keira Knightley; Kelly Ayotte; Kesha; Kim Kardashian;
Kirsten Gillibrand; Kristen Stewart; Lady Gaga; Laura Bush; Lindsey Vonn; Lisa Murkowski; Lolo Jones; Loretta Lynch;
Madhuri Dixit; Maisie Williams; Mamata Banerjee; Margaret Thatcher; Margot Robbie; Maria Sharapova; Marilyn Monroe;
Marion Cotillard; Martina Hingis; Mary Landrieu; Meg Whitman; Megan Fox; Meryl Streep; Mia Hamm; Michele Bachmann;
Michelle Keegan; Michelle Obama; Michelle Williams; Mila Kunis; Miley Cyrus; Monica Bellucci; Monica Seles;
Nancy Peloci; Naomi Watts; Natalie Portman; Nicole Kidman; Nicole Richie; Nikki Haley; Paris Hilton; Penelope Cruz;
Petra Kvitova; Piedad Cordoba; Princess Diana; Priyanka Chopra; Queen Elizabeth Ii; Reba Mcentire; Reese Witherspoon;
Rihanna; Robin Wright; Saina Nehwal; Salma Hayek; Sandra Bullock; Sania Mirza; Sarah Jessica Parker; Sarah Palin;
Scarlett Johansson; Selena Gomez; Serena Williams; Shalane Flanagan; Sonakshi Sinha; Sonam Kapoor; Sonia Gandhi;
Steffi Graf; Susan Collins; Taylor Swift; Tyra Banks; Uma Thurman; Victoria Azarenka; Vidya Balan; Winona Ryder;
Yelena Isinbayeva; Yulia Tymoshenko; Ziyi Zhang
"""
TRAINED_ON = ("pins105_112", "pins105_more_112", "glint24_112", "glint24_more_112", "lfw_rest_112")


def folded(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalpha())


def known_people(data: Path) -> dict[str, list[Path]]:
    """Photos of CFP's people by group; nobody of a name that was trained on."""
    folder = data / "cfp_112"
    names = [
        line.strip() for line in (folder / "list_name.txt").read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    women = {folded(name) for name in WOMEN.split(";")}
    unknown = [name for name in women if not any(folded(one).startswith(name) for one in names)]
    if unknown:
        raise SystemExit(f"not among CFP's people: {unknown}")
    places = [data / one for one in TRAINED_ON] + [data / "lfw_rest_112/images"]
    trained = {folded(path.name) for place in places if place.is_dir() for path in place.iterdir() if path.is_dir()}
    found: dict[str, list[Path]] = {"men": [], "women": []}
    for number, name in enumerate(names, 1):
        person = folder / "images" / f"{number:03d}" / "frontal"
        if folded(name) not in trained:
            group = "women" if any(folded(name).startswith(one) for one in women) else "men"
            found[group].append(person)
    return found


def crops_of(paths: list[Path], card: RecognizerCard) -> Pixels:
    return np.concatenate([retemplate_pixels(read(path)[None], card.template) for path in paths])


def embedded(judge: Any, crops: Pixels) -> Pixels:
    parts = [judge.embed(crops[start : start + 32]) for start in range(0, len(crops), 32)]
    return np.concatenate(parts)


def of_group(judge: Any, people: list[Path], limit: float) -> dict[str, Any]:
    """Errors between frontal photos of a group's people: strangers that match, and the same person who does not."""
    paths = [sorted(person.glob("*.webp"))[:EACH] for person in people]
    vectors = embedded(judge, crops_of([path for one in paths for path in one], judge.card))
    identity = np.repeat(np.arange(len(paths)), [len(one) for one in paths])
    scores = vectors @ vectors.T
    same = identity[:, None] == identity
    false = [(scores[identity == one][:, identity != one] >= limit).ravel() for one in range(len(paths))]
    missed = []
    for one in range(len(paths)):
        own = scores[np.ix_(identity == one, identity == one)]
        missed.append(own[np.triu_indices(len(own), 1)] < limit)
    return {
        "people": len(paths),
        "fmr": share(false),
        "fnmr": share(missed),
        "impostor_pairs": int((~same).sum()) // 2,
        "genuine_pairs": int(sum(len(one) for one in missed)),
    }


def share(by_person: list[NDArray[np.bool_]]) -> dict[str, float]:
    """Mean over people, and its 95 % interval."""
    found = bootstrap_by_subject([float(one.mean()) for one in by_person], range(len(by_person)))
    return {"mean": found.mean, "low": found.low, "high": found.high}


def portraits(data: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Synthetic portraits with their groups; who is of two is of both."""
    for path in sorted((data / "demo/sdfd_synthetic").rglob("*.webp")):
        name = path.name.split("-")[0]
        yield path, (GROUPS[name[:2]], *(GROUPS[letter] for letter in name[2:]))


def of_portraits(judge: Any, crops: Pixels, groups: list[tuple[str, ...]], limit: float) -> dict[str, Any]:
    """How many pairs of different portraits of a group match."""
    vectors = embedded(judge, crops)
    scores = vectors @ vectors.T
    found: dict[str, Any] = {"everybody": count(scores >= limit, list(range(len(groups))))}
    for group in GROUPS.values():
        found[group] = count(scores >= limit, [place for place, own in enumerate(groups) if group in own])
    return found


def count(matching: NDArray[np.bool_], members: list[int]) -> dict[str, int]:
    pairs = list(combinations(members, 2))
    return {"portraits": len(members), "pairs": len(pairs), "matching": int(sum(matching[pair] for pair in pairs))}


def recognition(data: Path) -> dict[str, Any]:
    people = known_people(data)
    files, groups = zip(*portraits(data), strict=True)
    photos = [read(path) for path in files]
    faces = [detect_faces(photo) for photo in photos]
    whole = [place for place, one in enumerate(faces) if len(one)]
    results: dict[str, Any] = {}
    for name in RECOGNIZERS:
        judge = load_judge(replace(find_card(name), roles=ROLES))
        limit = threshold(find_card(name), FMR).cosine
        crops = np.concatenate(
            [extract_crops(photos[place], faces[place].landmarks[:1], judge.card.template) for place in whole]
        )
        results[name] = {
            "threshold": limit,
            "sha256": judge.card.sha256,
            "cfp": {group: of_group(judge, members, limit) for group, members in people.items()},
            "portraits": of_portraits(judge, crops, [groups[place] for place in whole], limit),
        }
        print(name, json.dumps(results[name]), flush=True)
    return results


def detection(data: Path, seed: int) -> dict[str, Any]:
    """How many of a group's portraits, pasted small and turned, are found in scenes; the same scenes for each group.

    They are cut so close that they are pasted whole, as prints; those that show more than the face are left out.
    """
    pictures = [read(path) for path in skimage_pictures() if path.name not in DEVELOPMENT_PICTURES]
    found: dict[str, Any] = {}
    for group in GROUPS.values():
        prints = [pixels for path, own in portraits(data) if group in own and fills(pixels := read(path))]
        tally = {"upright": [0, 0], "turned": [0, 0]}
        for number in range(SCENES):
            rng = np.random.default_rng((seed, number))
            canvas = tiled(pictures[rng.integers(len(pictures))], HEIGHT, WIDTH)
            pasted = []
            for row in range(LATTICE // 2, HEIGHT - LATTICE // 2, LATTICE):
                for column in range(LATTICE // 2, WIDTH - LATTICE // 2, LATTICE):
                    size, angle = float(rng.choice(SIZES)), float(rng.choice(ANGLES))
                    pasted.append(lay(canvas, prints[rng.integers(len(prints))], size, angle, (column, row)))
            samples = (255 * canvas.clip(0, 1)).round().astype(np.uint8)
            encoded = cv2.imencode(".jpg", samples, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
            seen = detect_faces(cv2.imdecode(encoded, cv2.IMREAD_COLOR).astype(np.float32) / 255)
            for face in pasted:
                one = tally["upright" if face.angle == 0 else "turned"]
                one[0] += bool(matches(seen, face).any())
                one[1] += 1
        found[group] = {"portraits": len(prints), **{kind: {"found": a, "of": b} for kind, (a, b) in tally.items()}}
        print(group, found[group], flush=True)
    return found


def fills(pixels: Pixels) -> bool:
    """Whether a portrait is as high as its face."""
    faces = detect_faces(pixels)
    return bool(len(faces)) and bool(np.ptp(faces.boxes[np.argmax(faces.areas), 1::2]) > 0.6 * len(pixels))


def lay(canvas: Pixels, picture: Pixels, size: float, angle: float, middle: tuple[int, int]) -> Pasted:
    """Lay a print of a portrait, so many pixels high, on a scene."""
    reduced = cv2.resize(picture, (round(size), round(size)), interpolation=cv2.INTER_AREA)
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, 1.0)
    matrix[:, 2] += np.array(middle) - (size - 1) / 2
    shape = canvas.shape[1::-1]
    there = cv2.warpAffine(np.ones(reduced.shape[:2], np.float32), matrix, shape)[..., None]
    canvas[:] = canvas * (1 - there) + cv2.warpAffine(reduced, matrix, shape) * there
    return Pasted(size, angle, np.array(middle), np.zeros((5, 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("out/bench"))
    parser.add_argument("--only", choices=("detection", "recognition"), help="measure again in the card that is there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "groups.json"
    parts = {
        "detection": lambda: detection(options.data, options.seed),
        "recognition": lambda: recognition(options.data),
    }
    result = json.loads(path.read_text(encoding="utf-8")) if options.only else {}
    result |= {
        "schema": "bauta.benchmark/1",
        "name": "groups",
        "command": f"python benchmarks/groups.py DATA --seed {options.seed}",
        "code": code(),
        "machine": machine(),
        "fmr": FMR,
    }
    for part in [options.only] if options.only else parts:
        result[part] = parts[part]()
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
