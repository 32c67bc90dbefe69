"""Tokens: where a request has one, and what a signed one says of its bearer (RFC 7519, and RFC 8725 on its dangers).

1. The key decides the algorithm. `none`, another algorithm than the key's, and a key that came with the token are
   refused; of the token's header only `alg`, `kid` and `crit` are looked at.
2. A token without an end is refused, and so is one whose end is no time: in milliseconds, say, it would never come.
3. A token is good until its `exp`, to the instant, for who comes and for who is connected already; of `nbf` alone
   there is a leeway. Its times are looked at every time, also those of one that was good before.
4. No message and no log line holds a token, or anything out of one whose signature is not verified.
5. Whatever the text, `verify` returns an `Identity` or raises `BadToken`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
from jwt import PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm

from marketfeed.access.keys import KeySet, VerifyKey
from marketfeed.http.head import BadRequest
from marketfeed.model.identity import BadPattern, Identity, parse_patterns
from marketfeed.model.nesting import TOO_DEEP, is_too_deep

__all__ = ["LEEWAY", "MAX_SUBJECT", "MAX_TOKEN", "BadToken", "TokenVerifier", "subprotocol", "token_from"]

LEEWAY = 30.0
"""Seconds by which the issuer's clock may be ahead of this machine's: a token may be shown as soon as it is made."""
MAX_TOKEN = 8192
MAX_SUBJECT = 256
"""Characters of the claim `sub`."""

_Part = TypeVar("_Part")
_REMEMBERED = 1024
_LATEST_TIME = 253402300799  # the end of the year 9999
_BEARER = "bearer."
_OURS = "marketfeed"
_SUBPROTOCOL = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110, section 5.6.2


class BadToken(Exception):
    """A token is not accepted; the message is fit for a client."""


def token_from(headers: Mapping[str, str], query: str) -> str | None:
    """The token of a request: ``Authorization: Bearer …``, ``bearer.…`` in Sec-WebSocket-Protocol, or ``?token=…``.

    Names of `headers` are in lower case, repeated ones joined. An empty token is none. Raises `BadRequest` when there
    are two different ones, for who would know which of them a proxy has checked.
    """
    found = [*_bearers(headers.get("authorization", "")), *_offered_tokens(headers)]
    if query:
        found += parse_qs(query).get("token", [])
    if any(token != found[0] for token in found):
        raise BadRequest("there are two different tokens in the request")
    return found[0] if found else None


def subprotocol(headers: Mapping[str, str]) -> str | None:
    """The subprotocol to answer with: ours, else the first that was offered and is no token; None: without one."""
    offers = [offer for offer in _offers(headers) if not offer.lower().startswith(_BEARER)]
    if _OURS in offers:
        return _OURS
    return next(filter(_SUBPROTOCOL.fullmatch, offers), None)


class TokenVerifier:
    """Tells who the bearer of a token is.

    `keys` gives the keys in use (`KeyFiles.current`). `audience` and `issuer`: what the claims `aud` and `iss` must
    have. Without an audience a token that has one is refused, as it is meant for somebody else (RFC 7519, section
    4.1.3); without an issuer anybody's tokens are good whose keys these are. `now`: seconds since 1970.
    """

    def __init__(
        self,
        keys: Callable[[], KeySet],
        now: Callable[[], float],
        *,
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        self._keys = keys
        self._now = now
        self._audience = audience
        self._issuer = issuer
        self._signatures = PyJWS()
        self._signatures.unregister_algorithm("HS256")
        self._signatures.register_algorithm("HS256", _CheckedSecret(HMACAlgorithm.SHA256))
        self._verified: dict[bytes, _Verified] = {}
        self._verified_with: KeySet | None = None

    def renew(self, keys: Callable[[], KeySet], *, audience: str | None, issuer: str | None) -> None:
        """Verify with these from now on, as if nothing had been verified yet."""
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        self._verified_with = None

    def verify(self, token: str) -> Identity:
        """The identity that `token` gives to its bearer. Raises `BadToken`."""
        if len(token) > MAX_TOKEN:
            raise BadToken(f"the token is longer than {MAX_TOKEN} characters")
        if not token.isascii():
            raise BadToken("the token is no JWT")
        keys = self._keys()
        if keys is not self._verified_with:
            self._verified.clear()
            self._verified_with = keys
        digest = _digest(token)
        verified = self._verified.get(digest) or self._read(token, keys)
        self._check_times(verified)
        if digest not in self._verified:
            if len(self._verified) >= _REMEMBERED:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = verified
        return verified.identity

    def knows(self, token: str) -> bool:
        """Whether `token` was good, so that to verify it once more costs next to nothing."""
        return self._keys() is self._verified_with and _digest(token) in self._verified

    def _check_times(self, verified: _Verified) -> None:
        now = self._now()
        if now >= verified.identity.expires_at:
            raise BadToken("the token has expired")
        if now < verified.begins - LEEWAY:
            raise BadToken("the token is not valid yet (nbf)")

    def _read(self, token: str, keys: KeySet) -> _Verified:
        key = _key_for(token, keys)
        try:
            payload: bytes = self._signatures.decode(token, key.key, algorithms=[key.algorithm])
        except (PyJWTError, ValueError):
            raise BadToken("the token's signature is not valid") from None
        try:
            claims = _decode(payload, _Claims)
        except ValueError:
            raise BadToken("the token's claims are no JSON object") from None
        self._check_origin(claims)
        if not isinstance(claims.sub, str) or not 0 < len(claims.sub) <= MAX_SUBJECT:
            raise BadToken(f"the token's sub is missing or bad: expected a string of 1 to {MAX_SUBJECT} characters")
        try:
            patterns = None if claims.streams is msgspec.UNSET else parse_patterns(claims.streams, claims.sub)
        except BadPattern as error:
            raise BadToken(f"the token's {error}") from None
        begins = -_LATEST_TIME if claims.nbf is msgspec.UNSET else _time(claims.nbf, "nbf")
        return _Verified(Identity(claims.sub, patterns, _time(claims.exp, "exp")), begins)

    def _check_origin(self, claims: _Claims) -> None:
        audiences = claims.aud if isinstance(claims.aud, list) else [claims.aud]
        if self._audience is None and claims.aud is not None:
            raise BadToken("the token is for an audience (aud), and this server has been given none")
        if self._audience is not None and self._audience not in audiences:
            raise BadToken("the token is not for this server: another audience (aud), or none")
        if self._issuer is not None and claims.iss != self._issuer:
            raise BadToken("the token is from another issuer (iss), or from none")


class _Header(msgspec.Struct):
    alg: Any = None
    kid: Any = None
    crit: Any = None


class _Claims(msgspec.Struct):
    exp: Any = msgspec.UNSET
    nbf: Any = msgspec.UNSET
    aud: Any = None
    iss: Any = None
    sub: Any = msgspec.UNSET
    streams: Any = msgspec.UNSET


class _Verified(msgspec.Struct, frozen=True):
    """What a token comes to, from a moment on, in seconds since 1970."""

    identity: Identity
    begins: float


class _CheckedSecret(HMACAlgorithm):
    """HS256 with secrets that were checked when they were read, instead of at every token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _key_for(token: str, keys: KeySet) -> VerifyKey:
    """The key that must have signed `token`."""
    segment = token.partition(".")[0]
    try:
        header = _decode(base64.urlsafe_b64decode(segment + "=="), _Header)
    except ValueError:
        raise BadToken("the token is no JWT") from None
    if header.crit is not None:
        raise BadToken("the token demands an extension (crit) that is not known here")
    if not isinstance(header.kid, str | None):
        raise BadToken("the token's kid is no string")
    key = keys.choose(header.kid)
    if key is None and header.kid is None:
        raise BadToken("the token does not say which key has signed it (kid)")
    if key is None:
        raise BadToken("the token is signed with a key (kid) that is not known here")
    if header.alg != key.algorithm:
        raise BadToken(f"the token's alg is not the one of its key: expected {key.algorithm}")
    return key


def _decode(text: bytes, shape: type[_Part]) -> _Part:
    """One part of a token. Raises ValueError, of which msgspec's errors and Unicode's are some."""
    if is_too_deep(text):
        raise ValueError(TOO_DEEP)
    return msgspec.json.decode(text, type=shape)


def _time(value: Any, claim: str) -> float:
    """A claim in seconds since 1970 (RFC 7519, section 2, NumericDate)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LATEST_TIME <= value <= _LATEST_TIME:
        raise BadToken(f"the token's {claim} is missing or bad: expected a time in seconds since 1970")
    return float(value)


def _bearers(authorization: str) -> list[str]:
    """The tokens of the scheme Bearer (RFC 6750, section 2.1). Other schemes are for others."""
    credentials = (part.split(None, 1) for part in authorization.split(","))
    return [words[1].strip() for words in credentials if len(words) == 2 and words[0].lower() == "bearer"]


def _offered_tokens(headers: Mapping[str, str]) -> list[str]:
    """A browser's script can set no header but this one, so the token comes as the name of a subprotocol."""
    return [offer[len(_BEARER) :] for offer in _offers(headers) if offer.startswith(_BEARER) and offer != _BEARER]


def _offers(headers: Mapping[str, str]) -> list[str]:
    return [offer for offer in map(str.strip, headers.get("sec-websocket-protocol", "").split(",")) if offer]
