"""Receive webhooks: check the signature, answer at once, do each event once.

    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py [port]

Needs `pip install standardwebhooks`. It prints a line for each new event. Nightrate sends to https alone, unless
`webhook_hosts` names this host: put it behind whatever serves https for you.
"""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

#: In a service of yours, a table with a unique key: an event may come twice, with the same id.
SEEN: set[str] = set()


class Receiver(BaseHTTPRequestHandler):
    """Answers webhooks."""

    def do_POST(self) -> None:
        """Take one event."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            event = Webhook(os.environ["WEBHOOK_SECRET"]).verify(body, dict(self.headers))
        except WebhookVerificationError:
            self._answer(400)
            return
        if event["id"] not in SEEN:
            SEEN.add(event["id"])
            print(event["type"], event["data"]["id"], flush=True)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        """Print events alone."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080), Receiver)
    print(f"listening on port {server.server_address[1]}", flush=True)
    server.serve_forever()
