"""What the service answers, as its OpenAPI document says it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

PHOTOS = ("image/jpeg", "image/png", "image/webp")

Subject = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$",
        description="Your name for the person. A pseudonym is best: it is stored sealed, and erased with the rest.",
        examples=["s-1024"],
    ),
]
Known = Annotated[bool, Query(description="Store the face although it matches somebody else, such as a twin.")]
Force = Annotated[bool, Query(description="Answer even where strangers would often be taken for somebody.")]


class Problem(BaseModel):
    """What went wrong: a stable code, what is wrong, and what to do next."""

    code: str
    message: str
    hint: str


class Failure(BaseModel):
    """Any answer that is not a success."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "gallery.unknown-subject",
                        "message": "Nobody of that name is enrolled.",
                        "hint": "Check the name and the tenant.",
                    }
                }
            ]
        }
    )
    error: Problem


class Enrolled(BaseModel):
    """A record was stored."""

    record: str = Field(description="Id of the record, random.", examples=["0123456789abcdef0123456789abcdef"])


class Matched(BaseModel):
    """Whether the face is the subject's: one bit, and no score."""

    match: bool = Field(examples=[True])


class Searched(BaseModel):
    """Who the face is."""

    subject: str | None = Field(description="Null when nobody matches.", examples=["s-1024"])
    fpir: float | None = Field(
        description="Probability that a stranger is taken for somebody; null where it is not known.", examples=[0.03]
    )
    records: int = Field(description="How many were compared.", examples=[300])


class States(BaseModel):
    """How many records a subject has, and what they spent of a budget of differential privacy."""

    active: int = Field(examples=[2])
    revoked: int = Field(examples=[0])
    waiting: bool = Field(description="For a new photo, since the gallery was migrated.", examples=[False])
    epsilon_spent: float | None = Field(
        default=None,
        description="By all that was ever stored; null where the protector promises none.",
        examples=[2048],
    )
    epsilon_limit: float | None = Field(default=None, description="Null where there is none.", examples=[4096])


def _whole(value: object) -> object:
    """JSON has one sort of number: 1.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Revoke(BaseModel):
    """How long a revocation can be undone."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"grace_days": 30}]})
    grace_days: Annotated[
        int, Field(ge=0, le=3650, strict=True, description="Then the records are erased."), BeforeValidator(_whole)
    ]


class Changed(BaseModel):
    """How many records it was done to."""

    records: int = Field(examples=[2])


class Receipt(BaseModel):
    """Line of the audit, and the digest of all lines up to it: keep it to prove later that none was changed."""

    number: int = Field(examples=[17])
    digest: str = Field(examples=["ab" * 32])


class Erased(BaseModel):
    """``erased``: in no file of the store. ``pending``: the key is gone, and a reader still holds deleted bytes."""

    state: str = Field(examples=["erased"])
    receipt: Receipt


class Line(BaseModel):
    """A line of the audit: no names, no faces, no scores."""

    number: int
    at: int = Field(description="Seconds since 1970.")
    actor: str
    action: str
    outcome: str
    trace: str = Field(description="The same for lines of one subject, until its key is renewed or destroyed.")
    digest: str


class Audit(BaseModel):
    """Lines of the tenant, oldest first. Numbers have gaps where other tenants acted."""

    lines: list[Line]


class Stats(BaseModel):
    """How much there is of the tenant."""

    subjects: int = Field(examples=[300])
    active: int = Field(examples=[310])
    revoked: int = Field(examples=[4])
    waiting: int = Field(description="People who need a new photo since the gallery was migrated.", examples=[0])
    erasures_pending: int = Field(examples=[0])


class Health(BaseModel):
    """Whether requests are answered."""

    status: str = Field(examples=["ok"])


def photo_body(*, required: bool = True) -> dict[str, Any]:
    """How OpenAPI says that the body is a photo."""
    content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PHOTOS}
    return {"requestBody": {"required": required, "content": content, "description": "A photo of one face."}}
