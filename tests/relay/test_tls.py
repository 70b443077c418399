"""The self-signed certificate: what it bears, when it is made again, and how it is pinned."""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from relay.config import ConfigProblem
from relay.tls import ensure_certificate, fingerprint, make_context, set_up_tls
from tests.relay.conftest import make_config
from tests.relay.peer import new_key

HOSTS = ("relay.example", "192.0.2.1", "2001:db8::1")


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_it_bears_every_host_and_is_private(tmp_path: Path) -> None:
    cert, key = ensure_certificate(tmp_path, HOSTS)
    names = load(cert).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["relay.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(host) for host in HOSTS[1:]]
    for path in (cert, key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_pin_is_the_hash_of_the_der(tmp_path: Path) -> None:
    cert, _ = ensure_certificate(tmp_path, HOSTS)
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    assert fingerprint(cert) == hashlib.sha256(der).hexdigest()


def test_it_is_kept_while_hosts_stay(tmp_path: Path) -> None:
    cert, _ = ensure_certificate(tmp_path, HOSTS)
    first = fingerprint(cert)
    ensure_certificate(tmp_path, (*HOSTS[1:], HOSTS[0]))
    assert fingerprint(cert) == first
    ensure_certificate(tmp_path, HOSTS[:1])
    assert fingerprint(cert) != first


@pytest.mark.parametrize("name", ["relay.crt", "relay.pem"])
def test_it_is_made_again_when_a_file_is_damaged_lost_or_foreign(tmp_path: Path, name: str) -> None:
    cert, _ = ensure_certificate(tmp_path, HOSTS)
    other, _ = ensure_certificate(_made(tmp_path / "other"), HOSTS)
    for damage in (b"", b"garbage", (other.parent / name).read_bytes(), None):
        path = tmp_path / name
        path.unlink() if damage is None else path.write_bytes(damage)
        before = fingerprint(other)
        cert, key = ensure_certificate(tmp_path, HOSTS)
        assert fingerprint(cert) != before
        make_context(cert, key, new_key().public())


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_off_and_own_certificates_need_no_pin(tmp_path: Path) -> None:
    key = new_key()
    assert set_up_tls(make_config(tmp_path), key) == (None, "")
    cert, cert_key = ensure_certificate(tmp_path, HOSTS)
    own = make_config(tmp_path, tls=True, tls_cert=cert, tls_key=cert_key)
    context, pin = set_up_tls(own, key)
    assert context is not None
    assert pin == ""
    with pytest.raises(ConfigProblem, match="cannot be used"):
        set_up_tls(make_config(tmp_path, tls=True, tls_cert=cert_key, tls_key=cert), key)
