"""Members with rules of their own: patterns, addresses, moments; and what becomes of rules beyond them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from accounts.api.values import Text
from accounts.errors import Conflict, Invalid
from accounts.services.people import MAX_EMAIL

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_{|}~-]+"
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_TOP = r"([A-Za-z][A-Za-z-]{0,61}[A-Za-z]|[Xx][Nn]--[A-Za-z0-9]{1,59})"
EMAIL = rf"\A{_ATOM}(\.{_ATOM})*@(({_LABEL}\.)+{_TOP}|localhost)\Z"  # what check_email takes, too
# RFC 3339 section 5.6; without an offset it is UTC. A blank before the offset is a + that nobody encoded.
MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,20}))?(?:[Zz]|([-+ ])(\d\d):(\d\d))?", re.ASCII
)
FIRST_YEAR, LAST_SECOND = 1, 59


@contextmanager
def beyond_the_schema() -> Iterator[None]:
    """What a service calls invalid although the schema let it pass is a conflict."""
    try:
        yield
    except Invalid as error:
        raise Conflict(str(error)) from error


class Matching(Text):
    """A text of one form; ``example`` says of which."""

    def __init__(self, pattern: str, example: str, **options: Any) -> None:
        rule = RegexValidator(pattern, f"write it like {example}")
        super().__init__(**({"allow_blank": False, "validators": [rule]} | options))


class Email(Matching):
    """An e-mail address, in ASCII: no quoted name, no address literal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(EMAIL, "ana@example.com", **({"max_length": MAX_EMAIL} | options))


class Moment(serializers.DateTimeField):
    """A moment (RFC 3339), as a ``datetime`` in UTC; beyond those that there are, the nearest one."""

    default_error_messages = {"invalid": "is no moment like 2026-11-30T18:37:00Z"}

    def to_internal_value(self, value: Any) -> datetime:
        found = moment(value) if isinstance(value, str) else None
        if found is None:
            self.fail("invalid", format="RFC 3339")
        return found


def moment(text: str) -> datetime | None:
    """The moment that a text in RFC 3339 says; ``None`` for any other text."""
    match = MOMENT.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[index]) for index in range(1, 7))
    microsecond = int((match[7] or "0")[:6].ljust(6, "0"))
    try:
        local = datetime(
            max(year, FIRST_YEAR), month, day, hour, minute, min(second, LAST_SECOND), microsecond, UTC
        )
    except ValueError:
        return None
    ahead = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    if ahead >= timedelta(days=1):
        return None
    try:
        return local + ahead if match[8] == "-" else local - ahead
    except OverflowError:
        return local
