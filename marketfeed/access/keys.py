"""The keys that verify tokens: read from files, checked, and read anew when a file changes.

1. A key is good for one algorithm, which its type decides, never a token: HMAC secret HS256, RSA RS256, EC P-256 ES256,
   Ed25519 EdDSA. What looks like a public or a private key is never taken for a secret (RFC 8725, section 3.1).
2. A key that is too weak, or that is secret where only public ones belong, is refused when it is read.
3. A file that changed is read again within `CHECK_SECONDS`. While it cannot be used the old keys stay, and the log says
   why, once.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from cryptography.x509 import load_der_x509_certificate
from jwt import PyJWK, PyJWTError

from marketfeed.model.nesting import is_too_deep
from marketfeed.runtime.logs import Log
from marketfeed.runtime.tls_files import file_stamp

__all__ = [
    "BadKey",
    "KeyFiles",
    "KeySet",
    "VerifyKey",
    "algorithm_of",
    "is_pem",
    "load_keys",
    "read_key_file",
    "read_secret",
]

CHECK_SECONDS = 5.0
MIN_SECRET = 32
"""Bytes of an HMAC secret (RFC 7518, section 3.2)."""
MIN_RSA = 2048
"""Bits of an RSA key (RFC 7518, section 3.3)."""
MAX_FILE = 1024 * 1024

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_ACCEPTED = f"RSA of {MIN_RSA} bits or more, EC P-256 or Ed25519"
_TYPES = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""``kty`` and ``crv`` of a JWK → algorithm."""

_log = Log()


class BadKey(ValueError):
    """A key cannot be used; the message is one line that names the file and what would be accepted."""


class VerifyKey(msgspec.Struct, frozen=True):
    """A secret or a public key, and the one algorithm that it verifies."""

    algorithm: str
    key: bytes | PublicKey

    def __repr__(self) -> str:
        return f"VerifyKey({self.algorithm!r})"


class KeySet(msgspec.Struct, frozen=True):
    """The keys in use: those that tokens name by ``kid``, and one for tokens that name none.

    Where no key has a name, what a token calls its key means nothing, and the one key is for all.
    """

    named: dict[str, VerifyKey]
    unnamed: VerifyKey | None

    def choose(self, kid: str | None) -> VerifyKey | None:
        """The key for a token with this ``kid``, or None. The token's algorithm has no say in it."""
        return self.named.get(kid) if kid is not None and self.named else self.unnamed


def load_keys(key_path: str | None, jwks_path: str | None) -> KeySet:
    """The keys of a file with one, of a JWKS file, or of both. Raises `BadKey`."""
    if key_path is None and jwks_path is None:
        raise BadKey("expected the file of a key, or of a JWKS")
    unnamed = None if key_path is None else _read_key(key_path)
    if jwks_path is None:
        return KeySet({}, unnamed)
    keys = _read_jwks(jwks_path)
    named = {kid: key for kid, key in keys if kid is not None}
    if not named and len(keys) > 1:
        raise _bad(jwks_path, "none of its keys has a kid; expected one for each, as there are several")
    if len(named) < sum(kid is not None for kid, _ in keys):
        raise _bad(jwks_path, "two of its keys have the same kid")
    if unnamed is None and len(keys) == 1:
        unnamed = keys[0][1]
    return KeySet(named, unnamed)


class KeyFiles:
    """The keys of these files as they are now. `now`: seconds, from any beginning. Raises what `load_keys` does."""

    def __init__(self, key_path: str | None, jwks_path: str | None, now: Callable[[], float]) -> None:
        self._paths = key_path, jwks_path
        self._now = now
        self._checked = now()
        self._seen = self._state()  # first: a change while the files are read shows at the next check
        self._keys = load_keys(*self._paths)
        key_path, jwks_path = (path and os.path.abspath(path) for path in self._paths)
        self._paths = key_path, jwks_path  # twistd changes the directory later
        self._fault = ""

    def current(self) -> KeySet:
        """The keys to use; the same object as long as the files stay as they are."""
        now = self._now()
        if not 0 <= now - self._checked < CHECK_SECONDS:  # below 0: the clock was put back
            self._checked = now
            self._check()
        return self._keys

    def _check(self) -> None:
        state = self._state()
        if state == self._seen and not self._fault:
            return
        try:
            self._keys = load_keys(*self._paths)
        except BadKey as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _log.error("new keys for tokens cannot be used, the old ones stay: {fault}", fault=self._fault)
        else:
            _log.info("the keys for tokens were read anew")
            self._seen, self._fault = state, ""

    def _state(self) -> list[tuple[int, int, int]]:
        return [file_stamp(path) for path in self._paths if path is not None]


def algorithm_of(key: object) -> str | None:
    """The algorithm for which a public key is good; None if there is none, or the key is too weak."""
    if isinstance(key, RSAPublicKey):
        return "RS256" if key.key_size >= MIN_RSA else None
    if isinstance(key, EllipticCurvePublicKey):
        return "ES256" if isinstance(key.curve, SECP256R1) else None
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None


def is_pem(content: bytes) -> bool:
    """Whether a file was meant to be PEM, be it broken or in UTF-16: it is no secret then."""
    return b"BEGIN " in content.replace(b"\0", b"")


def read_key_file(path: str) -> bytes:
    """The content of a file of keys. Raises `BadKey` if there is none, or far too much."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        raise _bad(path, getattr(error, "strerror", None) or "expected the path of a file") from None
    if not content.strip():
        raise _bad(path, f"is empty; expected an HMAC secret of {MIN_SECRET} bytes or more, or a key")
    if len(content) > MAX_FILE:
        raise _bad(path, f"is larger than {MAX_FILE} bytes; expected a key")
    return content


def read_secret(path: str, content: bytes) -> bytes:
    """The HMAC secret in the content of a file: all of it but one newline at its end. Raises `BadKey`."""
    secret = content.removesuffix(b"\r\n") if content.endswith(b"\r\n") else content.removesuffix(b"\n")
    if content.lstrip().startswith((b"ssh-", b"ecdsa-sha2-")) or _is_der(content) or _is_der(_base64(content)):
        raise _bad(path, "is a public key in another form; expected PEM, which begins with -----BEGIN PUBLIC KEY-----")
    if isinstance(_json(content), dict | list):
        raise _bad(path, "is JSON; expected an HMAC secret or a key in PEM (a JWKS belongs into --auth-jwks)")
    if len(secret) < MIN_SECRET:
        raise _bad(path, f"is a secret of {len(secret)} bytes; expected {MIN_SECRET} or more, chosen at random")
    return secret


def _read_key(path: str) -> VerifyKey:
    content = read_key_file(path)
    if not is_pem(content):
        return VerifyKey("HS256", read_secret(path, content))
    if b"PRIVATE KEY-----" in content:
        raise _bad(path, "is a private key; expected the public one, from: openssl pkey -pubout -in FILE")
    if b"CERTIFICATE-----" in content:
        raise _bad(path, "is a certificate; expected its public key, from: openssl x509 -pubkey -noout -in FILE")
    try:
        key: Any = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise _bad(path, f"is not a public key in PEM that can be read; expected {_ACCEPTED}") from None
    return _verify_key(key, path, "is")


def _verify_key(key: Any, path: str, what: str) -> VerifyKey:
    algorithm = algorithm_of(key)
    if algorithm is None:
        bits = f" of {key.key_size} bits" if isinstance(key, RSAPublicKey) else ""
        raise _bad(path, f"{what} a key of another kind{bits}; expected {_ACCEPTED}")
    return VerifyKey(algorithm, key)


def _read_jwks(path: str) -> list[tuple[str | None, VerifyKey]]:
    table = _json(read_key_file(path))
    entries = table.get("keys") if isinstance(table, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _bad(path, 'is no JWKS; expected {"keys":[…]} (a single key belongs into --auth-key)')
    keys = []
    for number, entry in enumerate(entries, 1):
        if entry.get("kty") == "oct":
            raise _bad(path, f"key {number} is a secret; expected public keys (a secret belongs into --auth-key)")
        if "d" in entry:
            raise _bad(path, f"key {number} is private; expected public keys, which have no d")
        algorithm = _algorithm(entry)
        if algorithm is not None:
            kid = entry.get("kid")
            if kid is not None and not isinstance(kid, str):
                raise _bad(path, f"key {number} has a kid that is no string")
            keys.append((kid, _from_jwk(entry, algorithm, path, number)))
    if not keys:
        raise _bad(path, f"has no key that verifies tokens; expected {_ACCEPTED}")
    return keys


def _algorithm(entry: dict[str, Any]) -> str | None:
    """What a JWK is good for here; None: it is of no use, and no fault (RFC 7517, section 5)."""
    kind = entry.get("kty"), entry.get("crv")
    algorithm = next((name for known, name in _TYPES.items() if known == kind), None)
    operations = entry.get("key_ops", ["verify"])
    for_signatures = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    return algorithm if for_signatures and entry.get("alg", algorithm) == algorithm else None


def _from_jwk(entry: dict[str, Any], algorithm: str, path: str, number: int) -> VerifyKey:
    try:
        key = PyJWK(entry, algorithm).key
    except (PyJWTError, ValueError, TypeError, AttributeError, OverflowError, UnsupportedAlgorithm):
        raise _bad(path, f"key {number} is not as RFC 7518, section 6, has it for {algorithm}") from None
    return _verify_key(key, path, f"key {number} is")


def _json(content: bytes) -> Any:
    """The value of a JSON text; None if it is no such, or nests deeper than anything that is read here."""
    try:
        return None if is_too_deep(content) else json.loads(content)
    except ValueError:
        return None


def _is_der(content: bytes) -> bool:
    """Whether these are the bytes of a public key, or of a certificate, which anybody may have."""
    for load in (load_der_public_key, load_der_x509_certificate):
        try:
            load(content)
        except (ValueError, UnsupportedAlgorithm):
            continue
        return True
    return False


def _base64(content: bytes) -> bytes:
    """What `content` stands for in base64, as some show the inside of a PEM; empty if it is no such."""
    try:
        return base64.b64decode(content)
    except ValueError:
        return b""


def _bad(path: str, why: str) -> BadKey:
    return BadKey(f"{repr(path)[1:-1]}: {why}")
