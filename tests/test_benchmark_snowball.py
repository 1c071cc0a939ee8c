"""Protected photos that are recognised join the gallery."""

from __future__ import annotations

import numpy as np
import pytest

from bauta.benchmark.photos.results import summarise
from bauta.benchmark.photos.search import Gallery, add_snowball


def unit(angle: float) -> np.ndarray:
    return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)


def record(subject: str) -> dict:
    return {"subject": subject, "failure": None, "cells": {}, "sha256": ["a" * 64, "b" * 64]}


def outcome(angles: list[list[float]]) -> dict[str, np.ndarray]:
    """By pair the angles of protected, reference and protected reference; the original counts for nothing."""
    return {"judge": np.stack([np.stack([unit(0), *map(unit, row)]) for row in angles])}


NONE = Gallery({}, {}, {})
LIMIT = {"judge": float(np.cos(np.radians(12)))}


def test_a_chain_of_photos_is_followed_to_its_end():
    records = [record("anna"), record("anna")]
    # Known at 0 degrees; the chain goes 10, 20, 30, and one lies far away.
    add_snowball(records, outcome([[10, 0, 99], [20, 0, 30]]), NONE, LIMIT)
    assert records[0]["joined"] == {"judge": [1, None]}
    assert records[1]["joined"] == {"judge": [2, 3]}


def test_what_is_far_from_all_is_never_recognised():
    records = [record("anna"), record("anna")]
    add_snowball(records, outcome([[80, 0, 99], [20, 0, 100]]), NONE, LIMIT)
    assert [one["joined"]["judge"] for one in records] == [[0, None], [0, 0]]


def test_strangers_and_others_take_photos_away():
    records = [record("anna"), record("anna"), record("ben"), record("ben")]
    angles = [[10, 0, 99], [50, 0, 51], [45, 45, 99], [200, 0, 201]]
    add_snowball(records, outcome(angles), NONE, LIMIT)
    assert records[1]["joined"]["judge"] == [0, 0]  # taken for ben, which is no recognition of anna
    assert records[2]["joined"]["judge"] == [1, None]
    records = [record("anna"), record("anna")]
    stranger = Gallery({"judge": unit(11)[None]}, {}, {})
    add_snowball(records, outcome([[10, 0, 99], [20, 0, 30]]), stranger, LIMIT)
    assert records[0]["joined"]["judge"] == [0, None]


def test_people_with_one_pair_and_rows_without_cells_are_left_out():
    alone, other = record("anna"), record("ben")
    add_snowball([alone, other], outcome([[10, 0, 99], [20, 0, 30]]), NONE, LIMIT)
    assert "joined" not in alone
    bare = [{**record("anna")} for _ in range(2)]
    for one in bare:
        del one["cells"]
    add_snowball(bare, outcome([[10, 0, 99], [20, 0, 30]]), NONE, LIMIT)
    assert "joined" not in bare[0]


def test_figures_are_shares_of_photos():
    known = {
        "before": {"judge": 0.9}, "self": {"judge": 0.1}, "after": {"saved": {"judge": 0.1}},
        "target_before": {"judge": 0.0}, "target_after": {"judge": 0.0}, "detected": {"saved": True},
        "quality": {}, "largest_difference": None, "iterations": None,
        "cells": {"judge": {"gallery-protected": 0.1, "both-protected": 0.1}},
    }  # fmt: skip
    rows = [record("anna") | known | {"joined": {"judge": joined}} for joined in ([1, None], [2, 0])]
    judges = [{"name": "judge", "attacked": False, "threshold": {"cosine": 0.5}}]
    found = summarise(rows, judges, ["saved"])["snowball"]
    assert found["photos"] == 3
    assert found["first"]["mean"]["mean"] == pytest.approx(0.5)
    assert found["last"]["mean"]["mean"] == pytest.approx(0.75)
