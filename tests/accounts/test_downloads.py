"""Files that are made while they are read; and cells that no spreadsheet calculates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.http import StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from accounts import csvlines
from accounts.downloads import download


class Pieces:
    """Three pieces, and how many were made."""

    def __init__(self) -> None:
        self.made = 0

    def __iter__(self) -> Iterator[str]:
        for piece in ("one,", "two,", "three"):
            self.made += 1
            yield piece


@pytest.mark.django_db(transaction=True)  # the thread that reads looks after a connection
async def test_the_server_s_loop_gets_a_piece_before_the_next_is_made() -> None:
    pieces = Pieces()
    answer = download(AsyncRequestFactory().get("/"), iter(pieces), name="x.csv", media_type="text/csv")
    assert isinstance(answer, StreamingHttpResponse)
    parts = aiter(answer)
    assert (await anext(parts), pieces.made) == (b"one,", 1)
    assert [part async for part in parts] == [b"two,", b"three"]


def test_without_a_loop_it_is_read_as_it_comes() -> None:
    answer = download(RequestFactory().get("/"), iter(Pieces()), name="x.csv", media_type="text/csv")
    assert isinstance(answer, StreamingHttpResponse)
    assert answer.getvalue() == b"one,two,three"
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="x.csv"'


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "  ="])
def test_no_cell_is_a_formula(begin: str) -> None:
    assert csvlines.lines([[f"{begin}A1", 5, None, "a=1"]]).replace('"', "") == f"'{begin}A1,5,,a=1\r\n"
