"""Finding the server: each usual mistake is one line that says which it is."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.control.dial import (
    MAX_RETRY_SECONDS,
    Address,
    Backoff,
    Dialer,
    KeyAnswer,
    Server,
    fetch_key,
    retry_after,
)
from client.control.loop import check_clock
from client.errors import ControlError
from tests.client.control.servers import answering, http
from wire.keys import MachinePublic

KEY = MachinePublic(b"k" * 32)
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def server(port: int, scheme: str = "http", host: str = "127.0.0.1") -> Server:
    return Server.from_url(f"{scheme}://{host}:{port}")


async def complaint(address: Server, dialer: Dialer | None = None) -> str:
    with pytest.raises(ControlError) as refused:
        await fetch_key(dialer or Dialer(), address)
    text = str(refused.value)
    assert "\n" not in text
    return text


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "port", "netloc"),
    [
        ("http://a.example", 80, "a.example"),
        ("https://a.example", 443, "a.example"),
        ("https://a.example:8443", 8443, "a.example:8443"),
        ("http://[fd00::1]:8080", 8080, "[fd00::1]:8080"),
    ],
)
def test_an_address_has_its_schemes_port(url: str, port: int, netloc: str) -> None:
    parsed = Server.from_url(url)
    assert (parsed.port, parsed.netloc, parsed.url) == (port, netloc, url)


async def test_a_control_server_gives_its_key() -> None:
    body = f'{{"legacyPublicKey":"mkey:{"0" * 64}","publicKey":"{KEY}"}}'.encode()
    async with answering(http("200 OK", body, "Date: Mon, 01 Jun 2026 00:00:00 GMT")) as port:
        assert await fetch_key(Dialer(), server(port)) == KeyAnswer(KEY, NOW)


async def test_nobody_listens(closed_port: int) -> None:
    assert "refuses the connection" in await complaint(server(closed_port))


async def test_a_name_that_dns_does_not_know() -> None:
    async def unknown(host: str, port: int) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert "cannot find vpn.invalid in DNS" in await complaint(
        server(80, host="vpn.invalid"), Dialer(resolve=unknown)
    )


async def test_a_name_is_remembered_while_dns_is_down() -> None:
    async with answering(http("200 OK", f'{{"publicKey":"{KEY}"}}'.encode())) as port:
        works = True

        async def fickle(host: str, number: int) -> list[Address]:
            if not works:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
            return [("127.0.0.1", number)]

        dialer = Dialer(resolve=fickle)
        await fetch_key(dialer, server(port, host="vpn.example"))
        works = False
        assert (await fetch_key(dialer, server(port, host="vpn.example"))).key == KEY


async def test_an_address_that_refuses_does_not_hide_one_that_answers() -> None:
    async with answering(http("200 OK", f'{{"publicKey":"{KEY}"}}'.encode())) as port:

        async def two(host: str, number: int) -> list[Address]:
            return [("127.0.0.2", number), ("127.0.0.1", number)]

        assert (await fetch_key(Dialer(resolve=two), server(port, host="vpn.example"))).key == KEY


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no Trenza or Tailscale control server (it does not answer HTTP)"),
        (b"", "no Trenza or Tailscale control server"),
        (http("404 Not Found"), "no Trenza or Tailscale control server (HTTP 404"),
        (http("200 OK", b"<html>"), "no Trenza or Tailscale control server (no key"),
        (http("200 OK", b'{"publicKey":"mkey:1"}'), "no key"),
        (
            http("301 Moved", b"", "Location: https://else.example/key"),
            "leads elsewhere (https://else.example/key)",
        ),
        (http("502 Bad Gateway"), "cannot answer now (HTTP 502)"),
    ],
)
async def test_something_else_answers(answer: bytes, words: str) -> None:
    async with answering(answer) as port:
        assert words in await complaint(server(port))


async def test_https_where_only_http_is_spoken() -> None:
    async with answering(http("400 Bad Request")) as port:
        assert "is it http:// instead of https://?" in await complaint(server(port, "https"))


def self_signed(folder: Path, *, expired: bool = False) -> ssl.SSLContext:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    end = now - dt.timedelta(days=1) if expired else now + dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(private, hashes.SHA256())
    )
    path = folder / "both.pem"
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    async with answering(b"", tls=self_signed(tmp_path)) as port:
        text = await complaint(server(port, "https", "localhost"))
        assert "is not trusted" in text
        assert "self-signed certificate" in text


async def test_a_certificate_outside_its_dates_points_at_the_clock(tmp_path: Path) -> None:
    tls = self_signed(tmp_path, expired=True)
    async with answering(b"", tls=tls) as port:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "both.pem"))
        text = await complaint(server(port, "https", "localhost"), Dialer(tls=trusting))
        assert "outside its dates" in text
        assert "this machine's clock says" in text


@pytest.mark.parametrize(("hours", "word"), [(30, "ahead of"), (-30, "behind")])
def test_a_clock_that_is_off_ends_a_login(hours: int, word: str) -> None:
    with pytest.raises(ControlError, match=f"30 h 0 min {word} the server's"):
        check_clock(KeyAnswer(KEY, NOW), NOW + dt.timedelta(hours=hours))


@pytest.mark.parametrize("minutes", [-9, 0, 9])
def test_a_clock_that_is_nearly_right_is_right(minutes: int) -> None:
    check_clock(KeyAnswer(KEY, NOW), NOW + dt.timedelta(minutes=minutes))
    check_clock(KeyAnswer(KEY, None), NOW + dt.timedelta(days=99))


def test_waits_double_up_to_a_cap_and_begin_anew() -> None:
    backoff = Backoff(first=1.0, cap=5.0, spread=lambda low, high: 1.0)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0


def test_waits_are_spread() -> None:
    assert {Backoff(spread=lambda low, high: low).next(), Backoff(spread=lambda low, high: high).next()} == {
        0.125,
        0.375,
    }


def test_a_server_that_asks_for_time_gets_it_and_no_crowd_after() -> None:
    assert Backoff(spread=lambda low, high: low).next(60.0) == 60.0
    assert Backoff(spread=lambda low, high: high).next(60.0) == 90.0
    assert Backoff(spread=lambda low, high: low).next(0.01) == 0.125


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("0", 0.0), ("-3", 0.0), ("1e9", MAX_RETRY_SECONDS), ("soon", 0.0), ("", 0.0), ("nan", 0.0)],
)
def test_what_a_retry_after_asks_for(text: str, seconds: float) -> None:
    assert retry_after(text) == seconds


async def test_a_busy_server_says_when_to_come_again() -> None:
    async with answering(http("503 Service Unavailable", b"", "Retry-After: 7")) as port:
        with pytest.raises(ControlError, match="cannot answer now") as caught:
            await fetch_key(Dialer(), server(port))
    assert caught.value.retry_after == 7.0
