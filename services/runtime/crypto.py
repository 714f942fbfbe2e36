"""The installation's master key, and what is derived from it.

The key is 32 random bytes in a file that only its owner can read. From it come, by HKDF (RFC 5869)
with a label each, the key that services of the mesh sign with and the key that seals secrets at
rest by AES-256-GCM.

It can be replaced: the file may hold up to four keys, of which the first signs and seals, and all
verify and open. What another one sealed is sealed again with the first by whoever keeps it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SIZE = 32
_MOST_KEYS = 4
_NONCE = 12
# A key, its nonce, and the tag that AES-GCM adds.
_SEALED_KEY = _NONCE + _SIZE + 16


class MasterKeyError(Exception):
    """The master key is missing its bytes or its secrecy, or does not open what it sealed."""


class MasterKey:
    """Derives keys and seals secrets."""

    def __init__(self, key: bytes) -> None:
        """Take the key, and those before it.

        Raises:
            MasterKeyError: It is not 32 bytes, or those of at most four keys.
        """
        if not key or len(key) % _SIZE or len(key) > _SIZE * _MOST_KEYS:
            raise MasterKeyError(f"a master key has {_SIZE} bytes, not {len(key)}")
        self._keys = [key[start : start + _SIZE] for start in range(0, len(key), _SIZE)]
        self._sealing = [AESGCM(each) for each in self.derive_each("sealing")]

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
        try:
            return cls(path.read_bytes())
        except MasterKeyError:
            raise MasterKeyError(
                f"the master key {path} is damaged: put its backup in its place, since what it "
                "sealed cannot be opened without it"
            ) from None

    @staticmethod
    def keys_in(path: Path) -> list[bytes]:
        """The keys in a file, the first that signs and seals.

        Raises:
            MasterKeyError: The file is damaged.
            OSError: It cannot be read.
        """
        return MasterKey(path.read_bytes())._keys

    @staticmethod
    def replace(path: Path, keys: Sequence[bytes]) -> None:
        """Put other keys into a file, all or none.

        Raises:
            MasterKeyError: Those are no keys, or too many.
            OSError: It cannot be written.
        """
        whole = b"".join(keys)
        MasterKey(whole)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def derive(self, label: str) -> bytes:
        """32 bytes for one use."""
        return self.derive_each(label)[0]

    def derive_each(self, label: str) -> list[bytes]:
        """The same of every key, the first first: for what another may have signed."""
        info = f"plexus/{label}".encode()
        return [HKDF(SHA256(), _SIZE, salt=None, info=info).derive(each) for each in self._keys]

    def seal(self, secret: bytes, about: str) -> bytes:
        """Encrypt; `about` names what it is and must be given again to open it."""
        return _encrypt(self._sealing[0], secret, about)

    def open(self, sealed: bytes, about: str) -> bytes:
        """Decrypt.

        Raises:
            MasterKeyError: Another key sealed it, or it was changed.
        """
        return self._opened(sealed, about)[0]

    def sealed_again(self, sealed: bytes, about: str) -> bytes | None:
        """The same secret sealed with the first key; None where it is already.

        Raises:
            MasterKeyError: Another key sealed it, or it was changed.
        """
        secret, first = self._opened(sealed, about)
        return None if first else self.seal(secret, about)

    def enclose(self, secret: bytes, about: str) -> bytes:
        """Encrypt in an envelope: with a key of its own, which alone the master key seals."""
        key = secrets.token_bytes(_SIZE)
        return self.seal(key, about) + _encrypt(AESGCM(key), secret, about)

    def disclose(self, envelope: bytes, about: str) -> bytes:
        """Decrypt what is in an envelope.

        Raises:
            MasterKeyError: Another key sealed it, or it was changed.
        """
        key = self.open(envelope[:_SEALED_KEY], about)
        try:
            return _decrypt(AESGCM(key), envelope[_SEALED_KEY:], about)
        except InvalidTag:
            raise MasterKeyError(f"the envelope of {about} was changed") from None

    def enclosed_again(self, envelope: bytes, about: str) -> bytes | None:
        """The same envelope sealed with the first key; None where it is already.

        Raises:
            MasterKeyError: Another key sealed it, or it was changed.
        """
        key = self.sealed_again(envelope[:_SEALED_KEY], about)
        return None if key is None else key + envelope[_SEALED_KEY:]

    def _opened(self, sealed: bytes, about: str) -> tuple[bytes, bool]:
        """What is sealed, and whether the first key sealed it."""
        for number, each in enumerate(self._sealing):
            with contextlib.suppress(InvalidTag):
                return _decrypt(each, sealed, about), number == 0
        raise MasterKeyError(f"the master key does not open {about}")


def _encrypt(key: AESGCM, secret: bytes, about: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE)
    return nonce + key.encrypt(nonce, secret, about.encode())


def _decrypt(key: AESGCM, sealed: bytes, about: str) -> bytes:
    return key.decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode())
