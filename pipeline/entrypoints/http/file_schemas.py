"""The shapes of uploads and of files by reference."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.domain.files import FilePurpose
from pipeline.domain.limits import FILE_BYTES_MAX, UPLOAD_PARTS_MAX
from pipeline.entrypoints.http import schemas
from pipeline.entrypoints.http.schemas import WHOLE, ExpiresAfter, File

_PLAIN: Final = r"^[^\x00]*$"
_URL_CHARS_MAX: Final = 2048
_FILENAME_CHARS_MAX: Final = 255

Purpose = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]
Filename = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=_FILENAME_CHARS_MAX, pattern=r"^[^\x00-\x1f\x7f/\\]*$")
]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CreateUpload(_Asked):
    """A file that is to arrive in parts."""

    filename: Annotated[Filename, Field(description="For the purpose `batch`, one that ends with `.jsonl`.")]
    purpose: Purpose
    bytes: Annotated[int, Field(strict=True, ge=1, le=FILE_BYTES_MAX, description="What the parts sum up to."), WHOLE]
    mime_type: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=255, pattern=_PLAIN)]
    expires_after: ExpiresAfter | None = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            # What `check_name` asks for.
            "anyOf": [
                {"properties": {"purpose": {"enum": ["assistants", "evals", "fine-tune", "user_data", "vision"]}}},
                {"properties": {"filename": {"pattern": r"\.jsonl$"}}},
            ],
            "example": {
                "filename": "november.jsonl",
                "purpose": "batch",
                "bytes": 3_000_000_000,
                "mime_type": "application/jsonl",
            },
        },
    )


class CompleteUpload(_Asked):
    """Which parts make the file, in their order."""

    part_ids: Annotated[
        list[Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128, pattern=_PLAIN)]],
        Field(min_length=1, max_length=UPLOAD_PARTS_MAX),
    ]
    md5: (
        Annotated[
            str,
            StringConstraints(strict=True, pattern=r"^[0-9a-fA-F]{32}$"),
            Field(description="Of the whole file, in hex."),
        ]
        | None
    ) = None

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"part_ids": ["part_0199aa00000070008000000000000001"]}}
    )


class FileReference(_Asked):
    """A file that the server fetches by itself, from a place that the installation lists."""

    url: Annotated[
        str,
        StringConstraints(strict=True, min_length=1, max_length=_URL_CHARS_MAX, pattern=_PLAIN),
        Field(description="s3://bucket/key or file:///folder/file, below one of the setting `input_prefixes`."),
    ]
    purpose: Purpose
    filename: Annotated[Filename | None, Field(description="By default the last part of the URL.")] = None
    expires_after: ExpiresAfter | None = None


class Upload(BaseModel):
    """A file on its way in."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["upload"]
    bytes: int
    created_at: int
    filename: str
    purpose: FilePurpose
    status: Literal["pending", "completed", "cancelled", "expired"]
    expires_at: int
    file: File | None


class UploadPart(BaseModel):
    """A part of an upload."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["upload.part"]
    created_at: int
    upload_id: str


_FORM: Final[dict[str, Any]] = schemas.UPLOAD["requestBody"]["content"]
#: A form with the file in it, or JSON that says where it lies.
UPLOAD_OR_REFERENCE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            **_FORM,
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["url", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "url": {"type": "string", "minLength": 1, "maxLength": _URL_CHARS_MAX, "pattern": _PLAIN},
                        "purpose": {
                            "type": "string",
                            "enum": ["assistants", "batch", "evals", "fine-tune", "user_data", "vision"],
                        },
                        "filename": {"type": "string", "minLength": 1, "maxLength": _FILENAME_CHARS_MAX},
                        "expires_after": ExpiresAfter.model_json_schema(),
                    },
                },
                "example": {"url": "s3://our-inputs/2026/november.jsonl", "purpose": "batch"},
            },
        },
    }
}
UPLOAD_PART: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["data"],
                    "additionalProperties": False,
                    "properties": {"data": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
