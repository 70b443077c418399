"""Evaluate recorded policy cases: what each node would be told, one JSON object a line."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from controlplane.netmap.cases import evaluate_cases


class Command(BaseCommand):
    help = (
        "Evaluates policy cases (JSON Lines with id, policy, users, nodes) and prints a line of JSON each: "
        "id, status, message, and for every node filter_rules, ssh_rules, peers and self_cap_map."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--json", action="store_true", help="for likeness to other commands: always so")

    def handle(self, *args: Any, files: list[Path], **options: Any) -> None:
        cases = [case for file in files for case in _read(file)]
        for answer in evaluate_cases(cases):
            self.stdout.write(orjson.dumps(answer).decode())


def _read(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
        except ValueError as error:
            raise CommandError(f"{file}, line {number}: no JSON ({error})") from error
        if not isinstance(case, dict) or not {"id", "policy", "users", "nodes"} <= case.keys():
            raise CommandError(f"{file}, line {number}: a case has id, policy, users and nodes")
        yield case
