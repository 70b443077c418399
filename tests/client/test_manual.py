"""Manual pages and completion come whole out of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import FishComplete, ShellComplete, ZshComplete

from client import manual
from client.cli.__main__ import trenza
from tests.needs import need, program


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    need("bash")
    return manual.files()


def test_every_command_has_a_page_with_all_its_options(files: dict[str, str]) -> None:
    for name, command in trenza.commands.items():
        text = files[f"man/man1/trenza-{name}.1"]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(manual.roff(option) in text for option in parameter.opts)
    daemon = files["man/man8/trenzad.8"]
    assert all(manual.roff(option) in daemon for option in ("--state", "--socket", "--tun"))


def test_text_that_looks_like_roff_stays_text() -> None:
    assert manual.roff(".SH it's\n.x \\fB-y") == "\\&.SH it\\(aqs\n\\&.x \\(rsfB\\-y"


def test_man_shows_the_pages_without_a_complaint(files: dict[str, str]) -> None:
    need("man")
    for name, text in files.items():
        if name.startswith("man/"):
            done = subprocess.run(
                ["man", "--warnings", "-l", "-"], input=text, capture_output=True, text=True, check=True
            )
            assert done.stderr == "", name
            assert "NAME" in done.stdout


def test_bash_completes_commands_and_options(files: dict[str, str], tmp_path: Path) -> None:
    """Bash itself, with the file sourced, asks the program as it does when Tab is pressed."""
    completion = tmp_path / "completion"
    completion.write_text(files["bash-completion/completions/trenza"])
    wrapper = tmp_path / "trenza"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m client.cli "$@"\n')
    wrapper.chmod(0o755)
    script = (
        f'. {completion}; COMP_WORDS=(trenza "$@"); COMP_CWORD=$#; _trenza_completion trenza "${{@: -1}}"; '
        'echo "${COMPREPLY[*]}"'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.getcwd()}

    def complete(*words: str) -> list[str]:
        command = [program("bash") or "bash", "-c", script, "bash", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout.split()

    assert complete("stat") == ["status"]
    assert "--login-server" in complete("up", "--log")


@pytest.mark.parametrize("kind", [ZshComplete, FishComplete])
def test_other_shells_read_their_files(
    files: dict[str, str], tmp_path: Path, kind: type[ShellComplete]
) -> None:
    need(kind.name)
    (tmp_path / "file").write_text(files[manual.COMPLETIONS[kind]])
    subprocess.run([program(kind.name) or kind.name, "-n", str(tmp_path / "file")], check=True)
