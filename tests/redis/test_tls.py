"""What goes together of the files for TLS to Redis, and what a server means that does not take them."""

from __future__ import annotations

import re

import pytest

from marketfeed.redis.tls import RedisTls, explain_refusal


@pytest.mark.parametrize(
    ("tls", "has_tls", "misfit"),
    [
        (RedisTls(), False, None),
        (RedisTls("ca", "c", "k"), True, None),
        (RedisTls(certificate="c", key="k"), True, None),
        (RedisTls("ca"), False, ("redis_ca", "a rediss:// URL")),
        (RedisTls(certificate="c", key="k"), False, ("redis_certificate", "a rediss:// URL")),
        (RedisTls(key="k"), False, ("redis_key", "a rediss:// URL")),
        (RedisTls("ca", "c"), True, ("redis_certificate", "--redis-key")),
        (RedisTls("ca", None, "k"), True, ("redis_key", "--redis-certificate")),
    ],
)
def test_what_does_not_go_with_the_rest(tls: RedisTls, has_tls: bool, misfit: tuple[str, str] | None) -> None:
    """One option, and what it takes."""
    assert tls.misfit(has_tls=has_tls) == misfit


@pytest.mark.parametrize(
    ("fault", "explained"),
    [
        ("SSL routines: tlsv13 alert certificate required", "demands a client certificate: give --redis-certificate"),
        ("[SSL: X] sslv3 alert handshake failure (_ssl.c:1006)", "perhaps for want of a client certificate"),
        ("SSL routines: tls alert handshake failure", r"\(alert: handshake failure\)$"),
        ("SSL routines: tlsv1 alert unknown ca", r"not accept our client certificate, .* \(alert: unknown ca\)$"),
        ("SSL routines: ssl/tls alert bad certificate", r"not accept our .* \(alert: bad certificate\)$"),
        ("SSL routines: sslv3 alert unsupported certificate", r"not accept our .* \(alert: unsupported certificate\)$"),
        ("SSL routines: sslv3 alert certificate expired", r"not accept our .* \(alert: certificate expired\)$"),
        ("SSL routines: sslv3 alert certificate unknown", r"not accept our .* \(alert: certificate unknown\)$"),
        ("SSL routines: certificate verify failed", "^SSL routines: certificate verify failed$"),
        ("SSL routines: tlsv1 alert protocol version", "^SSL routines: tlsv1 alert protocol version$"),
        ("", "^$"),
    ],
)
def test_what_a_refusal_means(fault: str, explained: str) -> None:
    """In the operator's words where it is about the certificate, whatever OpenSSL calls it; else in OpenSSL's."""
    assert re.search(explained, explain_refusal(fault))
