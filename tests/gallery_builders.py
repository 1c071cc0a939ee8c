"""Small galleries, and keys to seal them, for the tests of the gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from bauta.gallery.enrol import Gallery
from bauta.keys import DeploymentKey, ScryptCost
from bauta.templates.representation import Representation

RECOGNIZER, PROTECTOR = "a" * 64, "b" * 64
CHEAP = ScryptCost(log_n=15)  # 32 MiB and a tenth of a second


def rows(count: int = 3, size: int = 4, seed: int = 0, **changes: Any) -> Representation:
    """So many random templates."""
    values: dict[str, Any] = {
        "tensor": torch.randn(count, size, generator=torch.Generator().manual_seed(seed)),
        "kind": "template",
        "recognizer": "toy",
        "recognizer_sha256": RECOGNIZER,
        "protector": "identity-feature",
        "protector_sha256": PROTECTOR,
    }
    return Representation(**{**values, **changes})


def small_gallery(count: int = 3, size: int = 4, seed: int = 0, **changes: Any) -> Gallery:
    names = ("Ann Lee.png", "Bob Roy.png", "Eve Doe.png", *(f"Person {number:06d}.png" for number in range(3, count)))
    return Gallery(rows(count, size, seed, **changes), names[:count])


def key_of(seed: int = 0) -> DeploymentKey:
    """A key that a test can have again; nothing weak about its bytes."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return DeploymentKey("file", bytes(torch.randint(256, (32,), generator=generator).tolist()), f"key {seed}")


def same(one: Gallery, other: Gallery) -> bool:
    """Whether faces, names, order and ids are the same."""
    return (one.id, one.records, one.names, one.representation.format) == (
        other.id, other.records, other.names, other.representation.format,
    ) and torch.equal(one.representation.tensor, other.representation.tensor)  # fmt: skip


def write_unsealed(path: Path, stored: Representation, names: Any, fingerprint: str = "", **changes: Any) -> None:
    """A gallery as it was written before galleries were sealed; None writes no names."""
    texts = ("kind", "recognizer", "recognizer_sha256", "protector", "protector_sha256", "storage")
    about = {"schema": 1, "key": fingerprint, **{name: getattr(stored, name) for name in texts}, **changes}
    tensors = {"values": stored.tensor, "low": stored.low, "step": stored.step}
    kept = {name: one for name, one in tensors.items() if one is not None}
    path.write_bytes(save(kept, metadata={"bauta.representation": json.dumps(about, sort_keys=True)}))
    if names is not None:
        path.with_suffix(".json").write_text(json.dumps({"names": names}), encoding="utf-8")
