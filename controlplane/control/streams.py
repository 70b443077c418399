"""Small answers that every handler of the control protocol gives."""

from __future__ import annotations

from typing import Any

from wire.codec import encode_json

TEXT_HEADERS = [("content-type", "text/plain; charset=utf-8")]
JSON_HEADERS = [("content-type", "application/json")]


def answer_text(stream: Any, status: int, text: str) -> None:
    """A refusal in words; clients show up to 200 characters of it."""
    stream.finish(text.encode(), status, TEXT_HEADERS)


def answer_json(stream: Any, content: Any, status: int = 200) -> None:
    stream.finish(encode_json(content), status, JSON_HEADERS)
