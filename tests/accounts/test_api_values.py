"""What the members of requests take, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.exceptions import ValidationError

from accounts.api.values import Closed, Number, checked


class Days(Closed):
    days = Number(min_value=1, max_value=180)


@pytest.mark.parametrize("written", [90, 90.0])
def test_a_whole_number_may_be_written_with_a_point(written: float) -> None:
    found = checked(Days, {"days": written})["days"]
    assert (found, type(found)) == (90, int)


@pytest.mark.parametrize("written", [90.5, True, "90", None, 0, 181, 1e300, 2**80, [90]])
def test_what_is_no_such_number_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        checked(Days, {"days": written})
