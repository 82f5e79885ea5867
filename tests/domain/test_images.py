from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.images import has_images, image_param, image_urls_of
from pipeline.domain.parameters import check_body, inputs_of

EMBED = Endpoint.EMBEDDINGS
URL = "https://images.example/a.png"
DATA = "data:image/png;base64,AAAA"


def part(url: object = URL, **more: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def said(*content: object, **more: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content), **more}]


@pytest.mark.parametrize("endpoint", [EMBED, Endpoint.CLASSIFY])
@pytest.mark.parametrize(
    ("body", "urls"),
    [
        ({"input": part()}, [URL]),
        ({"input": [part(), part(DATA, detail="auto")]}, [URL, DATA]),
        ({"messages": said(part())}, [URL]),
        ({"messages": said(part()), "input": None}, None),
        ({"input": part("s3://bucket/a%20b.png")}, ["s3://bucket/a%20b.png"]),
        ({"input": part("file:///pictures/a.png")}, ["file:///pictures/a.png"]),
        ({"input": part("DATA:IMAGE/JPEG;BASE64,AA==")}, ["DATA:IMAGE/JPEG;BASE64,AA=="]),
        ({"input": [part()] * 2048}, [URL] * 2048),
    ],
)
def test_images_stand_where_clients_put_them(endpoint: Endpoint, body: dict[str, Any], urls: list[str] | None) -> None:
    if urls is None:
        with pytest.raises(RequestRefusedError):
            check_body(endpoint, {"model": "m", **body})
        return
    check_body(endpoint, {"model": "m", **body})

    assert has_images(body)
    assert image_urls_of(body) == urls


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": [part(), "text"]}, "invalid_type", "body.input[1]"),
        ({"input": ["text", part()]}, "invalid_type", "body.input[0]"),
        ({"input": [part()] * 2049}, "invalid_value", "body.input"),
        ({"input": {"type": "text", "text": "x"}}, "unsupported_parameter", "body.input"),
        ({"input": {"type": "input_image", "image_url": URL}}, "unsupported_parameter", "body.input"),
        ({"input": {"type": "image_url", "image_url": URL}}, "invalid_type", "body.input.image_url"),
        ({"input": {**part(), "more": 1}}, "unsupported_parameter", "body.input"),
        ({"input": part(7)}, "invalid_type", "body.input.image_url.url"),
        ({"input": part(detail="high")}, "unsupported_parameter", "body.input.image_url.detail"),
        ({"input": part(other=1)}, "unsupported_parameter", "body.input.image_url.other"),
        ({"input": part("data:text/html;base64,AA")}, "unsupported_image_media_type", "body.input.image_url.url"),
        ({"input": part("data:image/svg+xml;base64,A")}, "unsupported_image_media_type", "body.input.image_url.url"),
        ({"input": part("data:;base64,AAAA")}, "unsupported_image_media_type", "body.input.image_url.url"),
        ({"input": part("data:image/png,AAAA")}, "invalid_base64_image", "body.input.image_url.url"),
        ({"input": part("data:image/png;x=1;base64,AA")}, "invalid_base64_image", "body.input.image_url.url"),
        ({"input": part("data:image/png")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("ftp://a/b")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("javascript:x")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("a.png")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https:///a.png")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://u:p@host/a")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://host:99999/a")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://host:0/a")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://[::1/a")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://host/a b")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://host/\r\nX: y")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://host\\@evil/")}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part("https://h/" + "a" * 8192)}, "invalid_image_url", "body.input.image_url.url"),
        ({"input": part(), "messages": said(part())}, "invalid_value", "body.messages"),
        ({"messages": said(part()) * 2}, "invalid_value", "body.messages"),
        ({"messages": []}, "invalid_value", "body.messages"),
        ({"messages": "x"}, "invalid_type", "body.messages"),
        ({"messages": ["x"]}, "invalid_type", "body.messages[0]"),
        ({"messages": [{"role": "system", "content": [part()]}]}, "invalid_value", "body.messages[0].role"),
        ({"messages": [{"role": "user", "content": "x"}]}, "invalid_type", "body.messages[0].content"),
        ({"messages": said(part(), part())}, "invalid_value", "body.messages[0].content"),
        ({"messages": said({"type": "text", "text": "x"})}, "unsupported_parameter", "body.messages[0].content[0]"),
        ({"messages": said(part(), name="bo")}, "unsupported_parameter", "body.messages[0].name"),
        ({"messages": said("x")}, "invalid_type", "body.messages[0].content[0]"),
        ({}, "invalid_request", "body.input"),
        ({"messages": None}, "invalid_request", "body.input"),
    ],
)
def test_anything_else_is_refused_by_name(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        check_body(EMBED, {"model": "m", **body})

    assert (caught.value.row_code, caught.value.param) == (code, param)
    assert len(caught.value.message) < 300


def test_texts_and_images_do_not_pass_for_each_other() -> None:
    with pytest.raises(RequestRefusedError, match="reads images"):
        image_urls_of({"input": ["a"]})
    for body in ({"input": part()}, {"messages": said(part())}):
        with pytest.raises(RequestRefusedError, match="reads text"):
            inputs_of(body)


def test_an_images_path_is_where_its_url_stands() -> None:
    assert image_param({"input": part()}, 0) == "body.input.image_url.url"
    assert image_param({"input": [part(), part()]}, 1) == "body.input[1].image_url.url"
    assert image_param({"messages": said(part())}, 0) == "body.messages[0].content[0].image_url.url"
