"""``manage.py setpolicy``: a file becomes the policy, or one line says what is wrong with it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from accounts.models import AuditEvent, Tailnet
from accounts.tenancy import scope
from controlplane.netmap.policy.default import TEXT as DEFAULT
from controlplane.netmap.policy.hujson import MAX_POLICY_BYTES
from controlplane.services.policy import current_policy, digest_of
from tests.accounts import factories as people

pytestmark = pytest.mark.django_db
TEXT = '{\n\t"acls": [], // closed\n}\n'


@pytest.fixture
def tailnet() -> Tailnet:
    return people.tailnet("home")[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "policy.hujson"
    made.write_text(TEXT)
    return made


def text_in(tailnet: Tailnet) -> str:
    with scope(tailnet=tailnet):
        return current_policy(tailnet).text


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("setpolicy", *arguments, stdout=out)
    return out.getvalue().strip()


def refusal(*arguments: str) -> str:
    told = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("setpolicy", *arguments, stderr=told)
    assert ended.value.code == 1
    return told.getvalue().strip()


def test_a_file_becomes_the_policy(tailnet: Tailnet, file: Path) -> None:
    said = json.loads(run("home", str(file), "--json", "--comment", "from git"))
    assert said == {"tailnet": "home", "version": 1, "etag": digest_of(TEXT)}
    assert text_in(tailnet) == TEXT
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
    assert (event.origin, event.details) == ("CLI", "from git")
    assert run("home", str(file)) == "home has version 1 of its policy"
    file.write_text("")
    assert run("home", str(file)) == "home has version 2 of its policy"
    assert text_in(tailnet) == DEFAULT


def test_it_reads_standard_input(tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    run("home", "-")
    assert text_in(tailnet) == TEXT


def test_an_etag_guards_it(tailnet: Tailnet, file: Path) -> None:
    run("home", str(file), "--if-match", "ts-default")
    file.write_text(f"// more\n{TEXT}")
    assert "changed meanwhile" in refusal("home", str(file), "--if-match", "ts-default")
    run("home", str(file), "--if-match", digest_of(TEXT))


def test_what_is_wrong_is_said_with_its_place(tailnet: Tailnet, file: Path) -> None:
    file.write_text('{\n"acls": [}\n')
    assert refusal("home", str(file)).startswith(f"Error: {file}:2:10: ")
    file.write_text('{"acls": [], "tests": [{"src": "ana@example.com", "accept": ["100.64.0.1:22"]}]}')
    told = json.loads(refusal("home", str(file), "--json"))["message"]
    assert told.startswith("test(s) failed\n  ana@example.com: ")
    assert text_in(tailnet) == DEFAULT


def test_what_cannot_be_read_is_said(tailnet: Tailnet, file: Path) -> None:
    assert "cannot be read" in refusal("home", str(file.parent / "none"))
    assert "cannot be read" in refusal("home", str(file.parent))
    file.write_bytes(b"\xff")
    assert "UTF-8" in refusal("home", str(file))
    file.write_bytes(b" " * (MAX_POLICY_BYTES + 1))
    assert str(MAX_POLICY_BYTES) in refusal("home", str(file))
    assert "there is no tailnet work" in refusal("work", str(file))
