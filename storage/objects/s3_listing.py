"""Keys of a bucket in lexicographic order, whatever order the server has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pipeline.domain.errors import UsageError
from storage.objects.keys import is_key
from storage.objects.s3_errors import s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

#: SeaweedFS lists folder by folder: `a/b` before `a-b`, where S3 has them the other way round.
_LISTS_BY_FOLDER: Final = "seaweedfs"


def listed(client: S3Client, *, bucket: str, root: str, prefix: str) -> Iterator[str]:
    """Yield the keys below `root` that begin with `prefix`, without `root`.

    One page of at most 1000 keys is held at a time; with SeaweedFS all of them, to be sorted.

    Raises:
        UsageError: The server lists in an unknown order; yielding on would break its users silently.
    """
    pages = iter(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{root}{prefix}"))
    gathered: list[str] = []
    last = ""
    while True:
        with s3_errors(prefix):
            page = next(pages, None)
        if page is None:
            break
        keys = _keys(page, root)
        if _is_by_folder(page):
            gathered.extend(keys)
            continue
        for key in keys:
            if key <= last:
                raise UsageError("this S3 server does not list keys in order", hint="use a general-purpose bucket")
            last = key
            yield key
    yield from sorted(gathered)


def _keys(page: ListObjectsV2OutputTypeDef, root: str) -> list[str]:
    """Return the page's keys, leaving out what no store of ours can have written, such as folder markers."""
    keys = (entry["Key"].removeprefix(root) for entry in page.get("Contents", ()))
    return [key for key in keys if is_key(key)]


def _is_by_folder(page: ListObjectsV2OutputTypeDef) -> bool:
    return page["ResponseMetadata"]["HTTPHeaders"].get("server", "").lower().startswith(_LISTS_BY_FOLDER)
