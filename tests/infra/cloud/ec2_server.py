"""EC2 as moto plays it, behind a door on the loopback that does what moto does not.

The door remembers client tokens as EC2 does, says that capacity is lacking where it is, and answers errors when told
to; what it lets through moto answers.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

IMAGE = "ami-12c6146b"
_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_OVERRIDE = "LaunchTemplateConfigs.1.Overrides."

Answer = tuple[int, bytes]


@dataclass(kw_only=True)
class Ec2Server:
    """What the door knows, and what it was asked."""

    url: str = ""
    moto_port: int = 0
    #: Answers to give instead, oldest first, by action: status, code.
    troubles: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    #: Where nothing can be started, with the code that says why.
    lacking: dict[str, str] = field(default_factory=dict)
    #: Actions that moto carries out while the answer never arrives: so many times.
    cut_off: dict[str, int] = field(default_factory=dict)
    #: Whole answers by action, for what moto does not know.
    answers: dict[str, list[str]] = field(default_factory=dict)
    asked: list[Mapping[str, str]] = field(default_factory=list)
    _by_token: dict[str, tuple[bytes, Answer]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def actions(self, action: str) -> list[Mapping[str, str]]:
        return [asked for asked in self.asked if asked["Action"] == action]

    def forget_tokens(self) -> None:
        self._by_token.clear()

    def answer(self, body: bytes, headers: Mapping[str, str]) -> Answer | None:
        """Return status and content; None: the connection breaks."""
        form = dict(parse_qsl(body.decode()))
        action = form["Action"]
        # One at a time: moto's tables are not safe for more.
        with self._lock:
            self.asked.append(form)
            if self.troubles.get(action):
                status, code = self.troubles[action].pop(0)
                return status, _error(code)
            if self.answers.get(action):
                return 200, self.answers[action].pop(0).encode()
            answer = self._create_fleet(form, body, headers) if action == "CreateFleet" else self._moto(body, headers)
            if self.cut_off.get(action, 0):
                self.cut_off[action] -= 1
                return None
            return answer

    def _create_fleet(self, form: dict[str, str], body: bytes, headers: Mapping[str, str]) -> Answer:
        token = form["ClientToken"]
        if token in self._by_token:
            known, answer = self._by_token[token]
            return answer if known == body else (400, _error("IdempotentParameterMismatch"))
        answer = self._fleet(form, headers)
        self._by_token[token] = (body, answer)
        return answer

    def _fleet(self, form: dict[str, str], headers: Mapping[str, str]) -> Answer:
        overrides: dict[str, dict[str, str]] = {}
        for name, value in form.items():
            if name.startswith(_OVERRIDE):
                index, _, key = name.removeprefix(_OVERRIDE).partition(".")
                overrides.setdefault(index, {})[key] = value
        errors = "".join(
            f"<item><errorCode>{self.lacking[each['SubnetId']]}</errorCode><errorMessage>of the test</errorMessage>"
            f"<lifecycle>spot</lifecycle></item>"
            for each in overrides.values()
            if each["SubnetId"] in self.lacking
        )
        left = [each for each in overrides.values() if each["SubnetId"] not in self.lacking]
        if not left:
            return 200, _response("CreateFleet", f"<fleetId>fleet-1</fleetId><errorSet>{errors}</errorSet>")
        sent = {name: value for name, value in form.items() if not name.startswith(_OVERRIDE)}
        for index, each in enumerate(left, start=1):
            sent.update({f"{_OVERRIDE}{index}.{key}": value for key, value in each.items()})
        status, content = self._moto(urlencode(sent).encode(), headers)
        end = b"</CreateFleetResponse>"
        return status, content.replace(end, f"<errorSet>{errors}</errorSet>".encode() + end)

    def _moto(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.moto_port, timeout=30)
        try:
            sent = {name: headers[name] for name in ("Content-Type", "Authorization", "X-Amz-Date") if name in headers}
            connection.request("POST", "/", body=body, headers=sent)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def scores(*entries: tuple[str, str, int]) -> str:
    """Return an answer about placement, of region, zone and score."""
    items = "".join(
        f"<item><region>{region}</region><availabilityZoneId>{zone}</availabilityZoneId><score>{score}</score></item>"
        for region, zone, score in entries
    )
    return _response("GetSpotPlacementScores", f"<spotPlacementScoreSet>{items}</spotPlacementScoreSet>").decode()


def _response(action: str, content: str) -> bytes:
    return f'<{action}Response xmlns="{_NAMESPACE}"><requestId>r</requestId>{content}</{action}Response>'.encode()


def _error(code: str) -> bytes:
    error = f"<Errors><Error><Code>{escape(code)}</Code><Message>of the test</Message></Error></Errors>"
    return f"<Response>{error}<RequestID>r</RequestID></Response>".encode()


@contextmanager
def running_ec2() -> Iterator[Ec2Server]:
    """Run moto, and the door before it."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    ec2 = Ec2Server(moto_port=moto.get_host_and_port()[1])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = ec2.answer(body, dict(self.headers))
            if answer is None:
                self.close_connection = True
                return
            status, content = answer
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    ec2.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield ec2
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        moto.stop()


def subnets_of(client: EC2Client) -> dict[str, str]:
    """Return the default subnets by zone."""
    found = client.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    return {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in found}
