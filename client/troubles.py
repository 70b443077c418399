"""What is wrong with the node now, a sentence a subject: said once in the log, kept until it is over."""

from __future__ import annotations

import logging

logger = logging.getLogger("trenzad")


class Troubles:
    """Subjects are short words of the code's own: a newer sentence takes the place of the older one."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def say(self, subject: str, text: str) -> None:
        """Keep it, and log it unless it is known already."""
        if self._texts.get(subject) != text:
            logger.warning("%s", text)
        self.keep(subject, text)

    def keep(self, subject: str, text: str) -> None:
        """What the log has by other words."""
        self._texts[subject] = text

    def over(self, subject: str) -> None:
        self._texts.pop(subject, None)

    def clear(self) -> None:
        self._texts.clear()

    def texts(self) -> list[str]:
        """The sentences, in the order of their subjects."""
        return [text for _, text in sorted(self._texts.items())]
