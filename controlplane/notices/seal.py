"""Secrets that the server must be able to use again: sealed with a key that follows from its SECRET_KEY."""

from __future__ import annotations

import base64
import hashlib

from django.conf import settings
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

PURPOSE = b"trenza webhook secrets"


def _box() -> SecretBox:
    return SecretBox(
        hashlib.blake2b(
            PURPOSE, key=hashlib.sha256(settings.SECRET_KEY.encode()).digest(), digest_size=32
        ).digest()
    )


def seal(secret: str) -> str:
    """The secret as a database may hold it (base64 of NaCl's secretbox)."""
    return base64.b64encode(_box().encrypt(secret.encode())).decode()


def unseal(sealed: str) -> str | None:
    """The secret; ``None`` when the server's key is another one than then."""
    try:
        return _box().decrypt(base64.b64decode(sealed)).decode()
    except (CryptoError, ValueError):
        return None
