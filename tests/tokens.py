"""Keys and tokens for tests: real keys of every type, and tokens made by hand, any part of which can be wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from marketfeed.access.keys import KeySet, VerifyKey

SECRET = b"a secret for tests, of 34 bytes..."
NOW = 1_700_000_000.0
HOUR = 3600
GOOD = {"sub": "alice", "exp": int(NOW) + HOUR}
"""The claims of a token that lacks nothing."""

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


def private_key(algorithm: str, number: int = 0) -> Any:
    """A key for an algorithm (for HS256 a secret), or one that is good for none of ours; always the same one."""
    return _made(algorithm, number)


@cache
def _made(algorithm: str, number: int) -> Any:
    match algorithm:
        case "HS256":
            return SECRET if number == 0 else SECRET[::-1]
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "RSA of 1024 bits":
            return rsa.generate_private_key(65537, 1024)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "Ed448":
            return ed448.Ed448PrivateKey.generate()
        case _:
            assert algorithm == "EdDSA"
            return ed25519.Ed25519PrivateKey.generate()


def public_key(algorithm: str, number: int = 0) -> Any:
    key = private_key(algorithm, number)
    return key if algorithm == "HS256" else key.public_key()


def key_set(algorithm: str) -> KeySet:
    """One key, without a name."""
    return KeySet({}, VerifyKey(algorithm, public_key(algorithm)))


def public_bytes(algorithm: str, encoding: Encoding = Encoding.PEM) -> bytes:
    data: bytes = public_key(algorithm).public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return data


def private_pem(algorithm: str) -> bytes:
    data: bytes = private_key(algorithm).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


def certificate() -> bytes:
    """A certificate of the EC key, in DER."""
    name, day = x509.Name([]), datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, public_key("ES256"), 1, day, day)
    return builder.sign(private_key("ES256"), SHA256()).public_bytes(Encoding.DER)


def jwk(algorithm: str, number: int = 0, *, private: bool = False, **members: Any) -> dict[str, Any]:
    """A key as a JWK; `members` are added, those that are None left out."""
    key = private_key(algorithm, number) if private else public_key(algorithm, number)
    if algorithm.startswith("RS"):
        made = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif algorithm.startswith("ES"):
        made = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        made = OKPAlgorithm.to_jwk(key, as_dict=True)
    made.pop("key_ops", None)
    return {name: value for name, value in {**made, **members}.items() if value is not None}


def write_jwks(path: Path, *keys: Any) -> str:
    path.write_text(json.dumps({"keys": keys}))
    return str(path)


def signed(
    algorithm: str = "HS256", claims: dict[str, Any] | None = None, headers: dict[str, Any] | None = None, **more: Any
) -> str:
    """A token as an issuer makes it: `GOOD` with `more` claims, where no `claims` are given."""
    claims = {**GOOD, **more} if claims is None else claims
    return jwt.PyJWS().encode(json.dumps(claims).encode(), private_key(algorithm), algorithm, headers)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], secret: bytes | None) -> str:
    """A token of these very bytes, signed with HMAC and SHA-256, or with nothing."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    text = ".".join(map(segment, parts))
    return f"{text}.{segment(hmac.digest(secret, text.encode(), hashlib.sha256)) if secret is not None else ''}"
