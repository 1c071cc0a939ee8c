"""Every registered cloak keeps the contract; so does a toy that fits, restores, and lives in the tests."""

from __future__ import annotations

import pytest
import torch

from bauta.cloaks.base import Edit, least_jacobian, load_cloak
from bauta.errors import InvalidEdit
from bauta.registry import list_methods
from bauta.testing import CloakContract, toy_view
from toy_veil import declare

for card in list_methods(kind="cloak"):
    names = [option.name for option in load_cloak(card.name).Config.options()]
    options = {"iterations": 3} if "iterations" in names else {}
    writing = {"iterations": 60, "weight": 1.5} if card.name == "watermark" else {}
    title = f"Test_{card.name}"
    globals()[title] = type(title, (CloakContract,), {"method": card.name, "options": options, "writing": writing})


class TestToyVeil(CloakContract):
    method = "toy-veil"

    @pytest.fixture(autouse=True)
    def declared(self, monkeypatch):
        declare(monkeypatch)


del CloakContract  # or pytest would collect it here, of no method


# An edit that is none cannot be made.


def smooth_warp(size: int = 112, amplitude: float = 2.0) -> torch.Tensor:
    bump = torch.sin(torch.linspace(0, torch.pi, size)) ** 2
    return torch.stack([amplitude * bump[:, None] * bump[None], -amplitude * bump[:, None] * bump[None]])


def test_a_warp_and_a_delta_are_an_edit():
    view = toy_view()
    inside = view.region > 0
    edit = Edit(view, 0.1 * inside.expand(3, -1, -1), smooth_warp() * inside, {"steps": 3}, b"secret")
    assert edit.payload == b"secret"
    assert 0.8 < least_jacobian(edit.warp) < 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"delta": torch.zeros(1, 112, 112)}, r"perturbation is torch.float32 of shape \[1, 112, 112\]"),
        ({"delta": torch.zeros(3, 112, 112, dtype=torch.int64)}, "perturbation is torch.int64"),
        ({"delta": "nothing"}, "perturbation is 'nothing'"),
        ({"delta": torch.full((3, 112, 112), float("inf"))}, "NaN or infinity"),
        ({"delta": torch.full((3, 112, 112), 0.1)}, "perturbation leaves the view's region"),
        ({"delta": 2 * (toy_view().region > 0).expand(3, -1, -1).float()}, r"leaves \[-1, 1\]"),
        ({"warp": torch.zeros(3, 112, 112)}, "warp is torch.float32 of shape"),
        ({"warp": torch.full((2, 112, 112), float("nan"))}, "NaN or infinity"),
        ({"warp": torch.ones(2, 112, 112)}, "warp leaves the view's region"),
        ({"warp": smooth_warp(amplitude=60.0) * (toy_view().region > 0)}, "folds"),
        ({"facts": {"list": [1]}}, "fact 'list' is list"),
        ({"payload": "text"}, "payload is not bytes"),
    ],
)
def test_what_is_no_edit_is_refused(change, said):
    with pytest.raises(InvalidEdit, match=said):
        Edit(**{"view": toy_view(), "delta": torch.zeros(3, 112, 112), **change})


def test_a_coloured_edit_of_a_grey_photo_is_refused():
    view = toy_view(grey=True)
    delta = torch.zeros(3, 112, 112)
    delta[0, 50, 50] = 0.1
    with pytest.raises(InvalidEdit, match="colour a greyscale photo"):
        Edit(view, delta)


def test_a_tear_is_a_fold():
    # Two pixels that swap places, in the middle of nothing.
    field = torch.zeros(2, 20, 20)
    field[0, 10, 10], field[0, 10, 11] = 1.0, -1.0
    assert least_jacobian(field) <= 0
    assert least_jacobian(torch.zeros(2, 20, 20)) == 1
