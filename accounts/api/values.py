"""What a request may hold: JSON of exactly the declared types and members; nothing is converted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from django.http import QueryDict
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from accounts.api.errors import TooLarge

MAX_BODY = 1 << 20
MAX_TEXT = 1000  # characters of a text that has no bound of its own
MAX_ITEMS = 1000  # of a list that has no bound of its own


class JsonParser(BaseParser):
    """Any body is JSON, whatever it is called, of at most :data:`MAX_BODY` bytes; an empty one is ``{}``."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        body = stream.read(MAX_BODY + 1)
        if len(body) > MAX_BODY:
            raise TooLarge(f"a body has at most {MAX_BODY} bytes")
        try:
            return orjson.loads(body) if body.strip() else {}
        except orjson.JSONDecodeError as error:
            raise ParseError(f"the body is no JSON: {error}") from error


class JsonRenderer(BaseRenderer):
    """Plain values as JSON."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None
    ) -> bytes:
        return b"" if data is None else orjson.dumps(data)


class Text(serializers.CharField):
    """A string, as it was written; ``allow_blank`` unless told otherwise."""

    default_error_messages = {"invalid": "is no text"}

    def __init__(self, **options: Any) -> None:
        options = {"allow_blank": True, "trim_whitespace": False, "max_length": MAX_TEXT} | options
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """true or false."""

    default_error_messages = {"invalid": "is neither true nor false"}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class Number(serializers.IntegerField):
    """A whole number, also one that is written with a point, as JSON Schema has it: 90.0."""

    default_error_messages = {"invalid": "is no whole number"}

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, float) and data.is_integer():
            data = int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(super().to_internal_value(data))


class Choice(serializers.ChoiceField):
    """One of some strings."""

    default_error_messages = {"invalid_choice": "is none of the values there are"}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


class Texts(serializers.ListField):
    """A list of strings; ``null`` is an empty one, as Go writes it."""

    child: serializers.Field[Any, Any, Any, Any] = Text()

    def __init__(self, **options: Any) -> None:
        super().__init__(**({"max_length": MAX_ITEMS, "allow_null": True} | options))


class Closed(serializers.Serializer[Any]):
    """An object that has these members and no others."""

    default_error_messages = {"unknown": "there is no member of this name"}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            unknown = [str(name)[:MAX_TEXT] for name in data if name not in self.fields]
            if unknown:
                raise serializers.ValidationError({unknown[0]: [self.error_messages["unknown"]]})
        return super().to_internal_value(data)


def parameters(kind: type[serializers.BaseSerializer[Any]], given: QueryDict) -> dict[str, Any]:
    """What a query says: of each parameter the last value, of one that is a list all of them."""
    fields = getattr(kind(), "fields", {})
    lists = {name for name, field in fields.items() if isinstance(field, serializers.ListField)}
    return {name: given.getlist(name) if name in lists else given[name] for name in given}


def checked(kind: type[serializers.BaseSerializer[Any]], data: Any) -> Any:
    """The values of a body; raises DRF's ``ValidationError``, which is a 400."""
    serializer = kind(data=data)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data
