"""The installation's master key, and what is derived from it.

The key is 32 random bytes in a file that only its owner can read. From it come, by HKDF (RFC 5869)
with a label each, the key that services of the mesh sign with and the key that seals secrets at
rest by AES-256-GCM.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SIZE = 32
_NONCE = 12


class MasterKeyError(Exception):
    """The master key is missing its bytes or its secrecy, or does not open what it sealed."""


class MasterKey:
    """Derives keys and seals secrets."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _SIZE:
            raise MasterKeyError(f"a master key has {_SIZE} bytes, not {len(key)}")
        self._key = key
        self._sealing = AESGCM(self.derive("sealing"))

    @classmethod
    def load(cls, path: Path, *, given: bool = False) -> MasterKey:
        """Read the key, or make it on the first start; a start that is cut off leaves none.

        Args:
            path: Its file.
            given: It is kept by somebody else, who lets our group read it: it is not made.

        Raises:
            MasterKeyError: The file is missing or damaged, or others can read it.
        """
        if given and not path.exists():
            raise MasterKeyError(f"PLEXUS_MASTER_KEY_FILE: there is no {path}")
        if not path.exists():
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_SIZE))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(fresh)  # unlike a rename it never replaces a key
            fresh.unlink()
        if path.stat().st_mode & (0o037 if given else 0o077):
            raise MasterKeyError(f"others can read {path}: run `chmod 600 {path}`")
        key = path.read_bytes()
        if len(key) != _SIZE:
            raise MasterKeyError(
                f"the master key {path} is damaged: put its backup in its place, since what it "
                "sealed cannot be opened without it"
            )
        return cls(key)

    def derive(self, label: str) -> bytes:
        """32 bytes for one use."""
        return HKDF(SHA256(), _SIZE, salt=None, info=f"plexus/{label}".encode()).derive(self._key)

    def seal(self, secret: bytes, about: str) -> bytes:
        """Encrypt; `about` names what it is and must be given again to open it."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._sealing.encrypt(nonce, secret, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Decrypt.

        Raises:
            MasterKeyError: Another key sealed it, or it was changed.
        """
        try:
            return self._sealing.decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode())
        except InvalidTag:
            raise MasterKeyError(f"the master key does not open {about}") from None
