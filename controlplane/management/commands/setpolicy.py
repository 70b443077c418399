"""``manage.py setpolicy TAILNET FILE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from accounts.actors import Actor
from accounts.errors import Invalid
from accounts.tenancy import scope
from controlplane.management.jsoncommand import JsonCommand, require_tailnet
from controlplane.netmap.policy.hujson import MAX_POLICY_BYTES
from controlplane.services.policy import PolicyRefused, current_policy, save_policy

STDIN = "-"


class Command(JsonCommand):
    help = "Have the policy in a file (HuJSON) in force in a tailnet. An empty file brings the default back."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tailnet")
        parser.add_argument("file", help="- reads standard input")
        parser.add_argument(
            "--if-match", default=None, metavar="ETAG", help="only while this text is in force"
        )
        parser.add_argument("--comment", default="", help="why, for the history")

    def answer(
        self, *, tailnet: str, file: str, if_match: str | None, comment: str, **options: Any
    ) -> dict[str, Any]:
        found = require_tailnet(tailnet)
        text = read_text(file)
        try:
            version = save_policy(
                tailnet=found, text=text, by=Actor.command(), etag=if_match, comment=comment
            )
        except PolicyRefused as error:
            raise Invalid(told(error, file)) from error
        with scope(tailnet=found):
            current = current_policy(found)
        return {"tailnet": found.name, "version": version.number, "etag": current.etag}

    def words(self, value: Any) -> str:
        if not value["version"]:
            return f"{value['tailnet']} has the default policy, as before"
        return f"{value['tailnet']} has version {value['version']} of its policy"


def read_text(file: str) -> str:
    """The file's text; raises :class:`Invalid`."""
    try:
        if file == STDIN:
            content = sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}") from error
    if len(content) > MAX_POLICY_BYTES:
        raise Invalid(f"{file} has more than {MAX_POLICY_BYTES} bytes, which no policy may have")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Invalid(f"{file} is no UTF-8: byte {error.start} is wrong") from error


def told(error: PolicyRefused, file: str) -> str:
    """What is wrong, as compilers say it, and which tests fail."""
    place = "" if error.at is None else f"{file}:{error.at[0]}:{error.at[1]}: "
    failing = [f"\n  {one.source}: {text}" for one in error.failures for text in one.errors]
    return f"{place}{error}{''.join(failing)}"
