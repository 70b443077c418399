#!/usr/bin/env python
"""Trenza's command line for operators: ``manage.py serve`` and everything that works on the database."""

from __future__ import annotations

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    if sys.argv[1:2] == ["serve"]:  # a small parent: no Django inside
        from controlplane.supervisor import main as serve

        sys.exit(serve(sys.argv[2:]))

    from django.core.management import execute_from_command_line

    from controlplane.env import EnvironmentProblem, environment

    try:
        environment()
    except EnvironmentProblem as problem:
        sys.exit(str(problem))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
