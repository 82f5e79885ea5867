"""AWS's price list and EC2's spot price history on the loopback, in the shapes that they answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass(frozen=True, kw_only=True)
class SpotChange:
    """One entry of the history."""

    instance_type: str
    zone: str
    zone_id: str
    price: str
    at: datetime


def product(
    instance_type: str,
    price: str,
    *,
    effective: str = "2026-01-01T00:00:00Z",
    reserved: str | None = None,
    **attributes: str,
) -> dict[str, object]:
    """Return a product of the price list, as much of it as AWS says that matters and some that does not."""

    def terms(units: str, **of_term: str) -> dict[str, object]:
        dimension = {
            "unit": "Hrs",
            "endRange": "Inf",
            "description": f"${units} per On Demand Linux {instance_type} Instance Hour",
            "appliesTo": [],
            "rateCode": "X.J.6",
            "beginRange": "0",
            "pricePerUnit": {"USD": units},
        }
        fee = {"unit": "Quantity", "description": "Upfront Fee", "pricePerUnit": {"USD": "0"}}
        return {
            "priceDimensions": {"X.J.6": dimension, "X.J.2": fee},
            "sku": "X",
            "effectiveDate": effective,
            "offerTermCode": "J",
            "termAttributes": of_term,
        }

    offers: dict[str, object] = {"OnDemand": {"X.J": terms(price)}}
    if reserved is not None:
        lease = {"LeaseContractLength": "1yr", "OfferingClass": "standard"}
        offers["Reserved"] = {
            "X.4": terms(reserved, PurchaseOption="No Upfront", **lease),
            "X.H": terms("0", PurchaseOption="All Upfront", **lease),
            "X.B": terms("0.1", PurchaseOption="No Upfront", LeaseContractLength="3yr", OfferingClass="standard"),
        }
    described = {"instanceType": instance_type, "regionCode": "us-east-1", "operatingSystem": "Linux", **attributes}
    return {
        "product": {"productFamily": "Compute Instance", "attributes": described, "sku": "X"},
        "serviceCode": "AmazonEC2",
        "terms": offers,
        "version": "20260101000000",
        "publicationDate": "2026-01-01T00:00:00Z",
    }


@dataclass(kw_only=True)
class Aws:
    """What the server knows, and what it was asked."""

    url: str = ""
    products: list[Mapping[str, object] | str] = field(default_factory=list)
    spot: list[SpotChange] = field(default_factory=list)
    page_entries: int = 1000
    #: Answers given before any other, oldest first: status, code.
    troubles: list[tuple[int, str]] = field(default_factory=list)
    asked: list[Mapping[str, object]] = field(default_factory=list)

    def answer(self, target: str | None, body: bytes) -> tuple[int, str, str]:
        """Return status, content type and content."""
        asked = json.loads(body) if target else {name: value[0] for name, value in parse_qs(body.decode()).items()}
        self.asked.append(asked)
        if self.troubles:
            status, code = self.troubles.pop(0)
            if target:
                return status, "application/x-amz-json-1.1", json.dumps({"__type": code, "message": "of the test"})
            error = f"<Errors><Error><Code>{code}</Code><Message>of the test</Message></Error></Errors>"
            return status, "text/xml", f"<Response>{error}<RequestID>r</RequestID></Response>"
        if target == "AWSPriceListService.GetProducts":
            return 200, "application/x-amz-json-1.1", json.dumps(self._products(asked))
        assert asked["Action"] == "DescribeSpotPriceHistory", asked
        return 200, "text/xml", self._history(asked)

    def _products(self, asked: Mapping[str, object]) -> dict[str, object]:
        first = int(str(asked.get("NextToken", 0)))
        page = self.products[first : first + self.page_entries]
        answer: dict[str, object] = {
            "FormatVersion": "aws_v1",
            "PriceList": [each if isinstance(each, str) else json.dumps(each) for each in page],
        }
        if first + self.page_entries < len(self.products):
            answer["NextToken"] = str(first + self.page_entries)
        return answer

    def _history(self, asked: Mapping[str, object]) -> str:
        since = datetime.fromisoformat(str(asked["StartTime"]))
        wanted = [each for each in self.spot if each.instance_type == asked["InstanceType.1"]]
        # What was in force when the span begins is told with the instant that it began at.
        in_force = {each.zone: each for each in sorted(wanted, key=lambda each: each.at) if each.at <= since}
        told = [*in_force.values(), *(each for each in wanted if each.at > since)]
        told.sort(key=lambda each: each.at, reverse=True)
        first = int(str(asked.get("NextToken", 0)))
        items = "".join(
            f"<item><instanceType>{each.instance_type}</instanceType>"
            f"<productDescription>Linux/UNIX</productDescription><spotPrice>{escape(each.price)}</spotPrice>"
            f"<timestamp>{each.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}</timestamp>"
            f"<availabilityZone>{each.zone}</availabilityZone>"
            f"<availabilityZoneId>{each.zone_id}</availabilityZoneId></item>"
            for each in told[first : first + self.page_entries]
        )
        token = first + self.page_entries if first + self.page_entries < len(told) else ""
        return (
            f'<DescribeSpotPriceHistoryResponse xmlns="{_NAMESPACE}"><requestId>r</requestId>'
            f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken>"
            "</DescribeSpotPriceHistoryResponse>"
        )


@contextmanager
def running_aws() -> Iterator[Aws]:
    """Run the server."""
    aws = Aws()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, kind, content = aws.answer(self.headers.get("X-Amz-Target"), body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    aws.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield aws
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
