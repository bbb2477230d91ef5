"""The keys that encrypt the brain's file, in a key file of their own beside the data directory.

A copy of the data directory alone reads as noise.  Rotation adds a key, re-encrypts every row with it and then
retires the old ones; a row names its key, so all of this may stop half way and go on later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brain_server.stores.sqlite.errors import BrainFileError

_NONCE_BYTES = 12


def default_key_file(data_dir: Path) -> Path:
    """Return where the key file is when nothing says otherwise: beside the data directory, not in it."""
    data_dir = data_dir.absolute()
    return data_dir.parent / f"{data_dir.name}-brain.keys"


class Keyring:
    """AES-256-GCM with named keys: `seal` uses the current one, `unseal` the one a row names."""

    def __init__(self, path: Path, *, may_create: bool = True) -> None:
        """Read the key file, or make one with a first key; raises BrainFileError if it may not be made."""
        self._path = path
        if not path.exists():
            if not may_create:
                raise BrainFileError(f"the key file {path} is missing; put it back, without it the data is unreadable")
            self.current = secrets.token_hex(4)
            self._keys = {self.current: secrets.token_bytes(32)}
            self._digest_key = secrets.token_bytes(32)
            self._write()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.current = str(content["current"])
            self._keys = {str(name): base64.b64decode(key) for name, key in content["keys"].items()}
            self._digest_key = base64.b64decode(content["digest_key"])
            self._ciphers = {name: AESGCM(key) for name, key in self._keys.items()}
            self._ciphers[self.current]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrainFileError(f"the key file {path} cannot be read: {error!r}") from None
        if path.stat().st_mode & 0o077:
            raise BrainFileError(f"the key file {path} is readable by others; run chmod 600 on it")

    @property
    def names(self) -> frozenset[str]:
        """The names of all keys held."""
        return frozenset(self._keys)

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt with the current key; `place` (table, tenant, id) is bound to it, so rows cannot be swapped."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[self.current].encrypt(nonce, plain, place.encode())

    def unseal(self, key_id: str, sealed: bytes, place: str) -> bytes:
        """Decrypt a row; raises BrainFileError if it was changed, moved, or its key is not held."""
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise BrainFileError(f"the key file {self._path} has no key {key_id}")
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
        except InvalidTag:
            raise BrainFileError(f"a row was changed or belongs elsewhere: {place}") from None

    def digest(self, content: bytes) -> bytes:
        """Return 16 bytes that tell contents apart without telling what they are; rotation does not change it."""
        return hashlib.blake2b(content, digest_size=16, key=self._digest_key).digest()

    def add_key(self) -> str:
        """Make a new current key, on disk before it is used; return its name."""
        self.current = secrets.token_hex(4)
        self._keys[self.current] = secrets.token_bytes(32)
        self._ciphers[self.current] = AESGCM(self._keys[self.current])
        self._write()
        return self.current

    def retire_others(self) -> None:
        """Destroy every key but the current one."""
        self._keys = {self.current: self._keys[self.current]}
        self._ciphers = {self.current: self._ciphers[self.current]}
        self._write()

    def _write(self) -> None:
        content = {
            "current": self.current,
            "keys": {name: base64.b64encode(key).decode() for name, key in self._keys.items()},
            "digest_key": base64.b64encode(self._digest_key).decode(),
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(self._path.name + ".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        sync_directory(self._path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
