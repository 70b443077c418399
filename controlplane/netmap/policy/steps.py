"""How much work the tests of a policy may be: counted, so that nobody's file holds up a server. Pure."""

from __future__ import annotations

MAX_STEPS = 300_000  # rules looked at for all tests of a kind: a second or two


class Steps:
    """Those that are left; raises ``ValueError``, whose text is for people, when they are used up."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise ValueError(f"the tests need more than {MAX_STEPS} steps: make them fewer")


def weight_of_group(members: int) -> int:
    """What it costs to look for somebody in a group."""
    return 1 + members // 16
