"""How moments read: ``4 months, 1 week ago`` and ``3 May 2026, 14:05 UTC``, for lists that show many of them.

The words are those of Django's ``naturaltime``; what it looks up for each moment is looked up once here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from django.contrib.humanize.templatetags.humanize import NaturalTimeFormatter, naturaltime
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.translation import get_language

A_DAY = timedelta(days=1)
CACHED = 2048  # texts, in whichever language


class _Unit:
    """A unit of time as ``timesince`` uses one: ``unit % {"num": 3}``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __mod__(self, values: dict[str, int]) -> str:
        return _counted(self.name, values["num"], get_language())


@lru_cache(CACHED)
def _counted(unit: str, number: int, language: str | None) -> str:
    return str(NaturalTimeFormatter.past_substrings[unit] % {"num": number})


UNITS = {name: _Unit(name) for name in NaturalTimeFormatter.past_substrings}


@lru_cache(CACHED)
def _ago(since: str, language: str | None) -> str:
    return str(NaturalTimeFormatter.time_strings["past-day"] % {"delta": since})


def ago_words(moment: datetime) -> str:
    """How long ago it was, or how long it is until then."""
    now = datetime.now(UTC)
    if now - moment < A_DAY:
        return str(naturaltime(moment))
    since = timesince(moment, now, time_strings=UNITS)  # type: ignore[arg-type] # only their % is used
    return _ago(since, get_language())


def day_words(moment: datetime) -> str:
    """The day in UTC."""
    return _day(moment.astimezone(UTC).date(), get_language())


@lru_cache(CACHED)
def _day(day: date, language: str | None) -> str:
    return date_format(day, "j M Y")


def exact_words(moment: datetime) -> str:
    """In UTC, said so, to the minute."""
    return f"{day_words(moment)}, {moment.astimezone(UTC):%H:%M} UTC"
