"""Images in requests: OpenAI's content part `image_url`, where it may stand, and what its URL may be.

    {"type": "image_url", "image_url": {"url": "https://…" | "data:image/png;base64,…" | "s3://bucket/key"}}

`/v1/embeddings` and `/v1/classify` take such a part, or a list of them, as `input`, or vLLM's form of one:
`messages` with one message of the user that has one such part. Nothing is fetched or decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from pipeline.domain.checks import Check, refuse, refuse_type, refuse_value, texts
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.limits import IMAGE_URL_CHARS_MAX

#: What can be decoded, by the media type that a data URI names. What an image is, its own bytes say.
MEDIA_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif"})
FORMATS: Final = "PNG, JPEG, WebP or GIF"
#: Of URLs; beside them only `data:`.
REMOTE_SCHEMES: Final = frozenset({"http", "https"})
OBJECT_SCHEMES: Final = frozenset({"s3", "file"})

_PART_KEYS: Final = frozenset({"type", "image_url"})
_URL_KEYS: Final = frozenset({"url", "detail"})
#: A prefix of a data URI that says what follows.
_DATA: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[^,;]*)*),", re.IGNORECASE)
_DATA_HEAD_CHARS_MAX: Final = 256
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f\\]")


def inputs(most: int) -> Check:
    """Return a check for 1 to `most` texts, or as many images; one of them may stand by itself."""
    check_texts = texts(most)

    def check(name: str, value: object) -> None:
        if isinstance(value, dict):
            _part(name, value)
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            if len(value) > most:
                refuse_value(name, f"expected 1 to {most} images")
            for index, each in enumerate(value):
                if not isinstance(each, dict):
                    refuse_type(f"{name}[{index}]", each, "an image, as the others are")
                _part(f"{name}[{index}]", each)
        else:
            check_texts(name, value)

    return check


def image_message(name: str, value: object) -> None:
    """Check a conversation that is one image: one message of the user with one part."""
    if value is None:
        return
    if not isinstance(value, list):
        refuse_type(name, value, "an array of one message")
    if len(value) != 1:
        refuse_value(name, "expected one message of the user with one image: write one request per image")
    _message(f"{name}[0]", value[0])


def _message(name: str, message: object) -> None:
    if not isinstance(message, dict):
        refuse_type(name, message, "an object")
    for key in message:
        if key not in {"role", "content"}:
            where = f"{name}.{str(key)[:64]}"
            refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)
    if message.get("role") != "user":
        refuse_value(f"{name}.role", "expected 'user'")
    content = message.get("content")
    if not isinstance(content, list):
        refuse_type(f"{name}.content", content, "an array of one image part")
    if len(content) != 1:
        refuse_value(f"{name}.content", "expected one image part: write one request per image")
    if not isinstance(content[0], dict):
        refuse_type(f"{name}.content[0]", content[0], "an object")
    _part(f"{name}.content[0]", content[0])


def _part(name: str, part: Mapping[str, Any]) -> None:
    if part.get("type") != "image_url" or not part.keys() <= _PART_KEYS:
        refuse(f"Only parts of type 'image_url' are supported in '{name}'.", "unsupported_parameter", name)
    image = part.get("image_url")
    if not isinstance(image, dict):
        refuse_type(f"{name}.image_url", image, "an object")
    for key in image:
        if key not in _URL_KEYS:
            where = f"{name}.image_url.{str(key)[:64]}"
            refuse(f"Parameter '{where}' is not supported.", "unsupported_parameter", where)
    if image.get("detail") not in {None, "auto"}:
        where = f"{name}.image_url.detail"
        refuse(
            f"Parameter '{where}' is not supported with this value; only 'auto' is: a model here reads one size.",
            "unsupported_parameter",
            where,
        )
    url = image.get("url")
    if not isinstance(url, str):
        refuse_type(f"{name}.image_url.url", url, "a string")
    _url(f"{name}.image_url.url", url)


def _url(name: str, url: str) -> None:
    if url[:5].lower() == "data:":
        _data(name, url)
        return
    if len(url) > IMAGE_URL_CHARS_MAX:
        refuse(f"The URL is longer than {IMAGE_URL_CHARS_MAX:,} characters.", "invalid_image_url", name)
    if why := url_fault(url):
        refuse(f"Invalid image URL: {why}.", "invalid_image_url", name)


def _data(name: str, url: str) -> None:
    head = _DATA.match(url[:_DATA_HEAD_CHARS_MAX])
    if head is None:
        refuse("Invalid image URL: a data URI begins with 'data:image/…;base64,'.", "invalid_image_url", name)
    media_type, parameters = (head[1] or "").lower(), head[2].lower()
    if media_type not in MEDIA_TYPES:
        shown = media_type[:64] or "no media type"
        refuse(f"Images are {FORMATS}; this data URI has {shown}.", "unsupported_image_media_type", name)
    if parameters != ";base64":
        refuse("Invalid image URL: a data URI's content is in base64, and says so.", "invalid_base64_image", name)


def url_fault(url: str) -> str | None:
    """Return what is wrong with the form of a URL that is no data URI; None if nothing is."""
    if _UNPRINTABLE.search(url):
        return "it has spaces, control characters or backslashes"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "it cannot be read"
    if parts.scheme not in REMOTE_SCHEMES | OBJECT_SCHEMES:
        return "expected https:, http:, data:, s3: or file:"
    if "@" in parts.netloc:
        return "it has a user or a password, which would be stored with the batch"
    if parts.scheme != "file" and not host:
        return "it has no host"
    return "its port is 0" if port == 0 else None


# --- reading a checked body --------------------------------------------------------------------


def has_images(body: Mapping[str, Any]) -> bool:
    """Say whether a checked embeddings or classify `body` asks about images rather than texts."""
    given = body.get("input")
    if given is None:
        return body.get("messages") is not None
    return isinstance(given, dict) or (isinstance(given, list) and isinstance(given[0], dict))


def image_urls_of(body: Mapping[str, Any]) -> list[str]:
    """Return the URLs of the images that a checked embeddings or classify `body` asks about, in order.

    Raises:
        RequestRefusedError: It asks about texts.
    """
    if not has_images(body):
        raise RequestRefusedError(
            "This model reads images, not text: give parts of type 'image_url'.",
            code="unsupported_input",
            param="body.input",
        )
    given = body.get("input")
    parts = body["messages"][0]["content"] if given is None else [given] if isinstance(given, dict) else given
    return [part["image_url"]["url"] for part in parts]


def image_param(body: Mapping[str, Any], index: int) -> str:
    """Return the path of the URL of a checked body's image."""
    if body.get("input") is None:
        return "body.messages[0].content[0].image_url.url"
    return f"body.input{'' if isinstance(body['input'], dict) else f'[{index}]'}.image_url.url"


def refuse_images(body: Mapping[str, Any]) -> None:
    """Raise `RequestRefusedError` where a checked `body` asks a model of texts about images."""
    if has_images(body):
        raise RequestRefusedError(
            "This model reads text, not images.",
            code="unsupported_input",
            param="body.messages" if body.get("input") is None else "body.input",
        )
