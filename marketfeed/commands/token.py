"""`marketfeed token`: a signed token for development, for a daemon that asks for one (`--auth`).

1. On stdout is the token and nothing else, so that a shell can put it where it is needed.
2. No token is printed that the daemon would refuse: each is verified, by the daemon's own rules, first.
3. A key file that exists is never written to; one that is made is for its owner's eyes only.
"""

from __future__ import annotations

import argparse
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from marketfeed.commands.arguments import note, whole_number
from marketfeed.config.settings import BadSetting
from marketfeed.model.kinds.values import is_market

if TYPE_CHECKING:
    from marketfeed.access.keys import VerifyKey

__all__ = ["add_parser", "run"]

MAX_SECONDS = 10 * 365 * 86400


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `token` to the commands."""
    parser = subparsers.add_parser(
        "token",
        help="sign a token, for development",
        description="Print a signed token for a daemon that was started with --auth. With --new-key alone, only make "
        "the key. Put patterns into single quotes, or the shell reads them.",
    )
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key", metavar="FILE", help="an HMAC secret, or a private key in PEM: RSA, EC P-256, Ed25519")
    keys.add_argument("--new-key", metavar="FILE", help="an HMAC secret, which is made if there is no such file")
    parser.add_argument("--user", metavar="NAME", help="whom the token is for (sub)")
    parser.add_argument(
        "--streams",
        metavar="PATTERN",
        nargs="+",
        action="extend",
        help="such as 'depth@*' 'orders@${sub}' (default: no such claim, which is every public stream)",
    )
    parser.add_argument(
        "--seconds", metavar="NUMBER", default="3600", help="until the token expires (default: %(default)s)"
    )
    parser.add_argument("--audience", metavar="NAME", help="what the daemon has as --auth-audience (aud)")
    parser.add_argument("--issuer", metavar="NAME", help="what the daemon has as --auth-issuer (iss)")
    parser.add_argument("--kid", metavar="NAME", help="of the key, as the daemon's JWKS names it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a token; returns the exit status."""
    claims = None if arguments.user is None else _claims(arguments, int(time.time()))
    if claims is None and arguments.new_key is None:
        raise BadSetting("--user: expected the name of the user whom the token is for")
    if arguments.new_key is not None:
        _make_secret(arguments.new_key)
    if claims is not None:
        print(_signed(claims, arguments), flush=True)
    return 0


def _claims(arguments: argparse.Namespace, now: int) -> dict[str, Any]:
    given = {
        "sub": arguments.user,
        "iat": now,
        "exp": now + whole_number("--seconds", arguments.seconds, 1, MAX_SECONDS),
        "streams": arguments.streams,
        "aud": arguments.audience,
        "iss": arguments.issuer,
    }
    return {claim: value for claim, value in given.items() if value is not None}


def _make_secret(path: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "expected the path of a file"
        raise BadSetting(f"--new-key: {repr(path)[1:-1]}: {why}") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(48) + "\n")
    note("token", f"made {repr(path)[1:-1]}; the daemon takes it with --auth-key")


def _signed(claims: dict[str, Any], arguments: argparse.Namespace) -> str:
    import jwt

    from marketfeed.access.keys import BadKey, KeySet
    from marketfeed.access.tokens import BadToken, TokenVerifier

    option, path = ("--key", arguments.key) if arguments.new_key is None else ("--new-key", arguments.new_key)
    try:
        key, verify_key = _signing_key(path)
    except BadKey as error:
        raise BadSetting(f"{option}: {error}") from None
    headers = None if arguments.kid is None else {"kid": arguments.kid}
    token = jwt.encode(claims, key, algorithm=verify_key.algorithm, headers=headers)
    verifier = TokenVerifier(
        lambda: KeySet({}, verify_key), time.time, audience=arguments.audience, issuer=arguments.issuer
    )
    try:
        identity = verifier.verify(token)
    except BadToken as error:
        raise BadSetting(f"the daemon would refuse it: {error}") from None
    if not is_market(identity.user):
        note(
            "token",
            "--user: this name gets no private stream, as it is not 1 to 64 of the characters A-Z a-z 0-9 . _ -",
        )
    return token


def _signing_key(path: str) -> tuple[Any, VerifyKey]:
    """What the file at `path` signs with, and what verifies it. Raises `BadKey`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from marketfeed.access.keys import BadKey, VerifyKey, algorithm_of, is_pem, read_key_file, read_secret

    content = read_key_file(path)
    if not is_pem(content):
        secret = read_secret(path, content)
        return secret, VerifyKey("HS256", secret)
    accepted = "expected a private key in PEM without a password: RSA of 2048 bits or more, EC P-256 or Ed25519"
    try:
        key: Any = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey(f"{repr(path)[1:-1]}: {accepted}") from None
    algorithm = algorithm_of(key.public_key())
    if algorithm is None:
        raise BadKey(f"{repr(path)[1:-1]}: a key of another kind; {accepted}")
    return key, VerifyKey(algorithm, key.public_key())
