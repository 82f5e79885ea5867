"""Object keys: functions of ids only, so that nothing a user wrote is ever part of a path.

Keys carry the token of the attempt that wrote them. A zombie's object therefore never stands where
its successor's belongs, and "already there" can only mean "I wrote this before".
"""

from __future__ import annotations

from datetime import date

from pipeline.domain.ids import BatchId, FileId, PackId, TenantId, UploadId, UploadPartId


def file_key(tenant_id: TenantId, file_id: FileId) -> str:
    """Return the key of an uploaded input file."""
    return f"tenants/{tenant_id}/files/{file_id}"


def upload_prefix(tenant_id: TenantId, upload_id: UploadId) -> str:
    """Return the prefix of an upload's parts and of what they are joined to."""
    return f"tenants/{tenant_id}/uploads/{upload_id}/"


def upload_part_key(tenant_id: TenantId, upload_id: UploadId, part_id: UploadPartId) -> str:
    """Return the key of one part of an upload."""
    return f"{upload_prefix(tenant_id, upload_id)}parts/{part_id}"


def joined_key(tenant_id: TenantId, upload_id: UploadId, file_id: FileId) -> str:
    """Return the key of the file that an upload's parts are joined to."""
    return f"{upload_prefix(tenant_id, upload_id)}files/{file_id}"


def batch_prefix(tenant_id: TenantId, batch_id: BatchId) -> str:
    """Return the prefix of everything a batch wrote."""
    return f"tenants/{tenant_id}/batches/{batch_id}/"


def shard_key(tenant_id: TenantId, batch_id: BatchId, claim_token: int, shard_no: int) -> str:
    """Return the key of one shard of one intake attempt."""
    return f"{batch_prefix(tenant_id, batch_id)}shards/{claim_token}-{shard_no:06d}.jsonl"


def roster_key(tenant_id: TenantId, batch_id: BatchId, claim_token: int, roster_no: int) -> str:
    """Return the key of one roster of one intake attempt."""
    return f"{batch_prefix(tenant_id, batch_id)}rosters/{claim_token}-{roster_no:06d}.txt"


def refusals_key(tenant_id: TenantId, batch_id: BatchId, claim_token: int) -> str:
    """Return the key of the part that holds the rows refused at intake."""
    return f"{batch_prefix(tenant_id, batch_id)}parts/intake-{claim_token}.jsonl"


def part_key(tenant_id: TenantId, batch_id: BatchId, pack_id: PackId, lease_token: int, part_no: int) -> str:
    """Return the key of one part of one attempt at one pack."""
    return f"{batch_prefix(tenant_id, batch_id)}parts/{pack_id}-{lease_token}-{part_no:05d}.jsonl"


def result_key(tenant_id: TenantId, batch_id: BatchId, claim_token: int, kind: str) -> str:
    """Return the key of the `output` or `error` file of one finalizing attempt."""
    assert kind in {"output", "error"}
    return f"{batch_prefix(tenant_id, batch_id)}results/{claim_token}-{kind}.jsonl"


def cost_day_prefix(view: str, day: date) -> str:
    """Return the prefix of a day's files of a cost view, a partition as Hive names it."""
    return f"cost/v1/{view}/day={day.isoformat()}/"


def cost_part_key(view: str, day: date, version: int, sha256: str) -> str:
    """Return the key of a day's file of a cost view: another for each version, and for each content."""
    return f"{cost_day_prefix(view, day)}part-{version:08d}-{sha256[:16]}.parquet"


def cost_manifest_key(day: date, version: int, sha256: str) -> str:
    """Return the key of what says which files a version of a day has; the last one by name is the day's."""
    return f"cost/v1/manifests/day={day.isoformat()}/version-{version:08d}-{sha256[:16]}.json"
