"""What a person is told where the kernel forbids user namespaces."""

from __future__ import annotations

import errno

import pytest

from client.rootless.words import SWITCHES, forbidden


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value, _ in SWITCHES])
def test_the_switch_that_forbids_is_named(name: str, value: str) -> None:
    text = str(forbidden("namespace", errno.EPERM, read=lambda asked: value if asked == name else "7"))
    assert name.replace("/", ".") in text
    assert "\n" not in text


def test_without_a_switch_a_container_is_suspected() -> None:
    assert "seccomp" in str(forbidden("mount", errno.EACCES, read=lambda _: ""))


def test_another_failure_is_told_as_it_is() -> None:
    text = str(forbidden("mount", errno.ENOMEM, read=lambda _: ""))
    assert "ENOMEM" in text
    assert "seccomp" not in text
