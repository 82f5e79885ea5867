"""The API under two hundred clients, and with a large file.

    python -m tests.bench.bench_api [--clients 200] [--seconds 30] [--polls-per-second 1050] [--gigabytes 2]

The API is a process of its own, `nightrate api`, on embedded servers; clients are connections of one other process,
kept open as SDKs keep them. `paced`: each client uploads a small file, makes a batch of it, and polls it at even
intervals; latencies count from when a poll was due, so that a server that falls behind is not flattered. `flat_out`:
the same clients, each asking again as soon as it is answered: what one process can do. `large`: one file up and down;
memory is the process's peak. Nothing else runs; the load itself takes a part of the two cores. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import uvloop
from pydantic import SecretStr

from infra.embedded.folder import DataFolder
from infra.embedded.supervisor import Supervisor
from pipeline.app.serving import KeyOrder, make_key, service_of
from pipeline.app.stack import open_stack
from pipeline.config import Settings
from pipeline.domain.access import Role
from pipeline.domain.ids import DEFAULT_TENANT
from storage.migrations import upgrade
from tests.bench.machine import machine

GOAL_P99_MILLISECONDS = 50
GOAL_READS_PER_SECOND = 1000
GOAL_MEMORY_BYTES = 300 * 1000 * 1000
BLOCK = 1024 * 1024


@dataclass(slots=True)
class Figures:
    """What clients saw."""

    polls: list[float] = field(default_factory=list)
    uploads: list[float] = field(default_factory=list)
    creations: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One connection that is kept, with one request at a time on it."""

    def __init__(self, key: str) -> None:
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        self._transport: asyncio.Transport
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        head = self._received[:end].lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self._received) >= end + 4 + length:
            status, body = int(self._received[9:12]), self._received[end + 4 :]
            self._received = b""
            self._answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    async def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
        more = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n" if body else ""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(f"{method} {path} HTTP/1.1\r\n{self._head}{more}\r\n".encode() + body)
        return await self._answer

    def close(self) -> None:
        self._transport.close()


def request_file(rows: int = 20) -> tuple[bytes, str]:
    """Return a small file of requests as a form."""
    asked = {"model": "echo", "messages": [{"role": "user", "content": "2+2?"}]}
    content = b"".join(
        json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": asked}).encode()
        + b"\n"
        for n in range(rows)
    )
    body = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n' + content + b"\r\n--b--\r\n"
    )
    return body, "multipart/form-data; boundary=b"


async def began(client: Client, figures: Figures) -> str:
    """Upload and create; return the batch's id."""
    started = time.perf_counter()
    status, answer = await client.ask("POST", "/v1/files", *request_file())
    uploaded = time.perf_counter()
    figures.uploads.append(uploaded - started)
    if status != 200:
        figures.errors.append(f"upload {status}")
    body = {
        "input_file_id": json.loads(answer)["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    status, answer = await client.ask("POST", "/v1/batches", json.dumps(body).encode())
    figures.creations.append(time.perf_counter() - uploaded)
    if status != 200:
        figures.errors.append(f"create {status}")
    return str(json.loads(answer)["id"])


async def client_life(
    port: int,
    key: str,
    *,
    start_at: float,
    stop_at: float,
    every_seconds: float,
    figures: Figures,
    renew: int,
    share: float,
) -> None:
    """Poll until `stop_at`, with a new file and batch every `renew` polls."""
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(key), "127.0.0.1", port)
    path = f"/v1/batches/{await began(client, Figures())}"
    # Spread evenly: clients that came one by one also upload one by one.
    due, polls = start_at, int(share * renew)
    await asyncio.sleep(max(0.0, start_at - time.perf_counter()))
    while (now := time.perf_counter()) < stop_at:
        polls += 1
        if polls % renew == 0:
            path = f"/v1/batches/{await began(client, figures)}"
            # What the upload took is not the polls' fault.
            due = max(due, time.perf_counter())
        if every_seconds:
            if due > now:
                await asyncio.sleep(due - time.perf_counter())
            asked_at = due
            due += every_seconds
        else:
            asked_at = time.perf_counter()
        status, _ = await client.ask("GET", path)
        figures.polls.append(time.perf_counter() - asked_at)
        if status != 200:
            figures.errors.append(f"poll {status}")
    client.close()


async def under_load(
    port: int, key: str, pids: dict[str, int], args: argparse.Namespace, *, rate: float
) -> dict[str, Any]:
    """Return what the clients saw at `rate` polls a second, or, at 0, flat out."""
    figures = Figures()
    every = args.clients / rate if rate else 0.0
    start = time.perf_counter() + 5
    lives = [
        client_life(
            port,
            key,
            start_at=start + (every or 1.0) * n / args.clients,
            stop_at=start + args.seconds,
            every_seconds=every,
            figures=figures,
            renew=args.renew,
            share=n / args.clients,
        )
        for n in range(args.clients)
    ]
    tasks = [asyncio.create_task(life) for life in lives]
    await asyncio.sleep(start - time.perf_counter())
    before = processor_seconds(pids)
    await asyncio.gather(*tasks)
    seconds = time.perf_counter() - start
    used = {name: after - before[name] for name, after in processor_seconds(pids).items()}
    return {
        "clients": args.clients,
        "seconds": round(seconds, 1),
        "polls_per_second": round(len(figures.polls) / seconds),
        "poll_milliseconds": percentiles(figures.polls),
        "processor_milliseconds_a_poll": {
            name: round(each * 1000 / len(figures.polls), 3) for name, each in used.items()
        },
        "uploads": len(figures.uploads),
        "upload_milliseconds": percentiles(figures.uploads),
        "create_milliseconds": percentiles(figures.creations),
        "errors": sorted(set(figures.errors)),
        "errors_total": len(figures.errors),
    }


def processor_seconds(pids: dict[str, int]) -> dict[str, float]:
    """Return what each process has used, and its children but those that are servers."""
    found = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        # The servers are children of ours.
        family = (process,) if pid == os.getpid() else (process, *process.children(recursive=True))
        times = [each.cpu_times() for each in family]
        found[name] = sum(each.user + each.system for each in times)
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the usual ones, in milliseconds."""
    if not seconds:
        return {}
    found = np.percentile(seconds, [50, 90, 99, 100]) * 1000
    return dict(zip(("p50", "p90", "p99", "max"), (round(float(each), 1) for each in found), strict=True))


def large_file(port: int, key: str, pid: int, gigabytes: float) -> dict[str, Any]:
    """Upload and download one file of random bytes; return speeds and the server's peak memory."""
    blocks = int(gigabytes * 1000**3) // BLOCK
    some = [os.urandom(BLOCK) for _ in range(16)]
    head = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="large"\r\n\r\n'
    )
    tail = b"\r\n--b--\r\n"
    sent, received = hashlib.sha256(), hashlib.sha256()
    headers = {"Authorization": f"Bearer {key}"}
    before = peak_bytes(pid)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.putrequest("POST", "/v1/files")
    size = len(head) + blocks * BLOCK + len(tail)
    for name, value in (
        headers | {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(size)}
    ).items():
        connection.putheader(name, value)
    started = time.perf_counter()
    connection.endheaders(head)
    for number in range(blocks):
        sent.update(some[number % 16])
        connection.send(some[number % 16])
    connection.send(tail)
    with connection.getresponse() as answer:
        file = json.loads(answer.read())
    upload_seconds = time.perf_counter() - started
    started = time.perf_counter()
    connection.request("GET", f"/v1/files/{file['id']}/content", headers=headers)
    with connection.getresponse() as answer:
        while block := answer.read(BLOCK):
            received.update(block)
    download_seconds = time.perf_counter() - started
    connection.close()
    return {
        "bytes": file["bytes"],
        "is_what_was_sent": sent.digest() == received.digest(),
        "upload_megabytes_per_second": round(file["bytes"] / upload_seconds / 1e6),
        "download_megabytes_per_second": round(file["bytes"] / download_seconds / 1e6),
        "memory_peak_bytes_before": before,
        "memory_peak_bytes": peak_bytes(pid),
    }


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextmanager
def api(home: Path, processes: int) -> Iterator[tuple[int, dict[str, int], str]]:
    """Run the API on servers of its own; yield its port, the processes that count, and a key."""
    folder = DataFolder(home)
    with Supervisor(folder) as urls:
        upgrade(urls.database_url)
        settings = Settings(
            home=home, database_url=SecretStr(urls.database_url), redis_url=SecretStr(urls.redis_url), api_port=0
        )
        with open_stack(settings) as stack:
            order = KeyOrder(tenant_id=DEFAULT_TENANT, project_id=None, name="bench", roles=[Role.SUBMIT])
            key = make_key(service_of(stack), order)[1]
        env = {
            **os.environ,
            "NIGHTRATE_HOME": str(home),
            "NIGHTRATE_DATABASE_URL": urls.database_url,
            "NIGHTRATE_REDIS_URL": urls.redis_url,
            "NIGHTRATE_API_PORT": "0",
            "NIGHTRATE_API_PROCESSES": str(processes),
        }
        log = home / "api.log"
        command = [sys.executable, "-m", "pipeline.entrypoints.cli", "api"]
        with log.open("wb") as file, subprocess.Popen(command, env=env, stderr=file) as process:
            try:
                while log.read_bytes().count(b"api_listening") < processes:
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.05)
                said = next(json.loads(line) for line in log.read_text().splitlines() if "api_listening" in line)
                state = folder.read_state()
                assert state is not None
                pids = {"api": process.pid, "postgres": state.pids["postgres"], "clients": os.getpid()}
                yield said["port"], pids, key
            finally:
                process.terminate()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--polls-per-second", type=float, default=1050)
    parser.add_argument("--renew", type=int, default=100, help="polls of one batch before the next upload")
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--processes", type=int, default=2, help="of the API, on one port")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightrate-bench-") as folder:
        with api(Path(folder) / "home", args.processes) as (port, pids, key):
            warm = argparse.Namespace(**{**vars(args), "seconds": 2})
            uvloop.run(under_load(port, key, pids, warm, rate=200))
            paced = uvloop.run(under_load(port, key, pids, args, rate=args.polls_per_second))
            flat_out = uvloop.run(under_load(port, key, pids, args, rate=0))
        with api(Path(folder) / "other", 1) as (port, pids, key):
            large = large_file(port, key, pids["api"], args.gigabytes) if args.gigabytes else None
    report = {
        "benchmark": "api",
        "machine": machine(),
        "paced": paced,
        "flat_out": flat_out,
        "large": large,
        "goals": {
            "p99": paced["poll_milliseconds"]["p99"] < GOAL_P99_MILLISECONDS,
            "reads": paced["polls_per_second"] >= GOAL_READS_PER_SECOND,
            "errors": not paced["errors_total"] and not flat_out["errors_total"],
            "memory": large is None or large["memory_peak_bytes"] < GOAL_MEMORY_BYTES,
        },
    }
    json.dump(report, sys.stdout, indent=2)
    print()
    sys.exit(0 if all(report["goals"].values()) else 1)


if __name__ == "__main__":
    main()
