"""The relay's certificate (self-signed, pinned through the DERP map) and its TLS context."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.config import Config, ConfigProblem
from relay.files import write_private
from wire.derp import PROTOCOL_VERSION
from wire.keys import NodePrivate, NodePublic

CERT_FILE = "relay.crt"
CERT_KEY_FILE = "relay.pem"
CERT_DAYS = 3650
RENEW_DAYS = 365
META_PREFIX = "derpkey"
DEFAULT_HOSTS = ("localhost", "127.0.0.1")


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, serial: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERT_DAYS))
    )


def _make_certificate(hosts: tuple[str, ...]) -> tuple[bytes, bytes]:
    """A self-signed certificate that bears every host, and its key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Trenza relay")])
    certificate = (
        _builder(subject, key, x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), pem_key


def ensure_certificate(data: Path, hosts: tuple[str, ...]) -> tuple[Path, Path]:
    """Certificate and key in ``data``, made again when the hosts changed or the end is near.

    Raises :class:`ConfigProblem` for a host that no certificate can bear.
    """
    cert_path, key_path = data / CERT_FILE, data / CERT_KEY_FILE
    hosts = hosts or DEFAULT_HOSTS
    try:
        if not _is_good(cert_path, key_path, hosts):
            certificate, key = _make_certificate(hosts)
            write_private(key_path, key)
            write_private(cert_path, certificate)
    except ValueError as error:
        raise ConfigProblem(
            f"TRENZA_RELAY_HOSTS={','.join(hosts)!r} has a name that no certificate can bear; "
            "write host names in ASCII, or IP addresses"
        ) from error
    return cert_path, key_path


def _is_good(cert_path: Path, key_path: Path, hosts: tuple[str, ...]) -> bool:
    """Whether the pair belongs together, bears exactly these hosts, and lives long enough."""
    try:
        certificate = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=RENEW_DAYS)
    return (
        set(names) == {_name(host) for host in hosts}
        and certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc > soon
    )


def fingerprint(cert_path: Path) -> str:
    """Hex SHA-256 of the certificate's DER: what the DERP map pins."""
    certificate = x509.load_pem_x509_certificate(cert_path.read_bytes())
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def meta_certificate(relay: NodePublic) -> bytes:
    """The extra certificate (PEM) that tells a TLS 1.3 client the relay's key, so that it can start fast.

    Its common name is longer than X.509 allows: the check, and the warning that replaces it, are off.
    Source: tailscale derp/derpserver (initMetacert).
    """
    key = ec.generate_private_key(ec.SECP256R1())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        name = x509.NameAttribute(NameOID.COMMON_NAME, META_PREFIX + relay.hex, _validate=False)
    certificate = _builder(x509.Name([name]), key, PROTOCOL_VERSION).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_context(cert_path: Path, key_path: Path, relay: NodePublic) -> ssl.SSLContext:
    """TLS 1.2 and newer, the meta certificate behind the chain, no resumption: it would hide that one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE  # clients know what they are quick at
    context.num_tickets = 0
    chain = os.memfd_create("relay-chain")
    try:
        os.write(chain, cert_path.read_bytes().rstrip() + b"\n" + meta_certificate(relay))
        context.load_cert_chain(f"/proc/self/fd/{chain}", key_path, password="")  # never ask at a terminal
    finally:
        os.close(chain)
    return context


def set_up_tls(config: Config, relay: NodePrivate) -> tuple[ssl.SSLContext | None, str]:
    """The context (``None`` = plain) and the fingerprint to pin ("" = a certificate that needs no pin).

    Raises :class:`ConfigProblem` for files that cannot be used.
    """
    if not config.tls:
        return None, ""
    if config.tls_cert is None or config.tls_key is None:
        cert_path, key_path = ensure_certificate(config.data, config.hosts)
        return make_context(cert_path, key_path, relay.public()), fingerprint(cert_path)
    try:
        return make_context(config.tls_cert, config.tls_key, relay.public()), ""
    except (OSError, ssl.SSLError) as error:
        raise ConfigProblem(
            f"TRENZA_RELAY_TLS_CERT={config.tls_cert} and TRENZA_RELAY_TLS_KEY={config.tls_key} "
            f"cannot be used: {error.strerror or error}"
        ) from error
