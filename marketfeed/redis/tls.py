"""What TLS to the Redis server takes: the files, by the names of the options, and what a refusal of theirs means."""

from __future__ import annotations

import re

import msgspec

__all__ = ["REDIS_TLS", "RedisTls", "explain_refusal"]

REDIS_TLS = ("redis_ca", "redis_certificate", "redis_key")
"""The options that name the files."""
_CERTIFICATE, _KEY = "--redis-certificate", "--redis-key"
_ALERT = re.compile(
    r"alert ((?:certificate (?:required|expired|revoked|unknown))|handshake failure|unknown ca"
    r"|(?:bad|unsupported) certificate)\b"
)
"""What OpenSSL calls the alerts (RFC 8446, section 6.2) that are about a certificate of the client's."""


class RedisTls(msgspec.Struct, frozen=True):
    """Paths of PEM files. `ca`: whom to trust, in place of the system's; `certificate`: ours, and `key`: its key."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def misfit(self, *, has_tls: bool) -> tuple[str, str] | None:
        """An option that does not go with the rest, underscores for hyphens, and what it is expected together with."""
        given = dict(zip(REDIS_TLS, (self.ca, self.certificate, self.key), strict=True))
        for field in REDIS_TLS:
            if given[field] is not None and not has_tls:
                return field, "a rediss:// URL"
        for field, flag in (("redis_certificate", _KEY), ("redis_key", _CERTIFICATE)):
            if given[field] is not None and (self.certificate is None or self.key is None):
                return field, flag
        return None


def explain_refusal(fault: str) -> str:
    """What OpenSSL says of a failed handshake, in an operator's words where it is about the client's certificate."""
    found = _ALERT.search(fault)
    if found is None:
        return fault
    alert = found[1]
    if alert == "certificate required":
        return f"the server demands a client certificate: give {_CERTIFICATE} and {_KEY}"
    if alert == "handshake failure":
        return (
            "the server refuses the handshake, perhaps for want of a client certificate, "
            f"which {_CERTIFICATE} and {_KEY} give (alert: {alert})"
        )
    return f"the server does not accept our client certificate, that of {_CERTIFICATE} (alert: {alert})"
