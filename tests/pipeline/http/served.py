"""The API on a real socket, in this process, on whatever stack a test gives it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from pipeline.app.serving import KeyOrder, Service, make_key, service_of
from pipeline.app.stack import Stack
from pipeline.domain.access import Role
from pipeline.domain.ids import DEFAULT_TENANT, ProjectId, TenantId
from pipeline.entrypoints.http.server import build_app, config_of, listening
from tests.services import eventually


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever was answered
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error


@dataclass(slots=True)
class Served:
    """A running API, and a client that knows nothing of it but its address."""

    service: Service
    url: str
    keys: dict[tuple[str, str | None, tuple[Role, ...]], str] = field(default_factory=dict)

    @property
    def stack(self) -> Stack:
        return self.service.stack

    def key(self, *roles: Role, tenant_id: TenantId = DEFAULT_TENANT, project_id: ProjectId | None = None) -> str:
        """Return a key with these roles, `submit` where none is named."""
        wanted = (tenant_id, project_id, roles or (Role.SUBMIT,))
        if wanted not in self.keys:
            order = KeyOrder(tenant_id=tenant_id, project_id=project_id, name="test", roles=wanted[2])
            self.keys[wanted] = make_key(self.service, order)[1]
        return self.keys[wanted]

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; `body` is bytes, or becomes JSON. An empty `key` sends none."""
        sent: dict[str, str] = dict(headers or {})
        if key != "":
            sent.setdefault("Authorization", f"Bearer {key or self.key()}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            connection.request(method, path, body, sent)
            with connection.getresponse() as response:
                return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def upload(self, content: bytes, *, filename: str = "in.jsonl", key: str | None = None, **fields: str) -> Answer:
        """Upload a file as a form with these fields; `purpose` is `batch` unless named."""
        body, content_type = form({"purpose": "batch", **fields}, filename=filename, content=content)
        return self.ask("POST", "/v1/files", body, key=key, headers={"Content-Type": content_type})


def form(
    fields: Mapping[str, str], *, filename: str | None, content: bytes = b"", field: str = "file"
) -> tuple[bytes, str]:
    """Return a multipart form and its content type."""
    boundary = "bound-4f1c"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if filename is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@contextmanager
def served(stack: Stack) -> Iterator[Served]:
    """Serve the API on a free port of this machine until the block ends."""
    service = service_of(stack)
    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(config_of(build_app(service)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="api")
        thread.start()
        try:
            eventually(lambda: server.started)
            yield Served(service, f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()
