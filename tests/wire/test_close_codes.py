"""The close codes; tests/test_docs.py compares the table of the documents with them."""

from __future__ import annotations

from marketfeed.wire.close_codes import CLOSE_REASONS


def test_close_reasons() -> None:
    """No code twice, each one that a server may send, and the meaning fits a close frame (RFC 6455, section 5.5)."""
    codes = [reason.code for reason in CLOSE_REASONS]
    assert len(set(codes)) == len(codes)
    assert {1002, 1003, 1007, 1009, 1011, 1012, 4008, 4029, 4401} <= set(codes)
    for reason in CLOSE_REASONS:
        assert reason.code in range(1000, 1015) or reason.code in range(4000, 5000)
        assert reason.code not in (1004, 1005, 1006)
        assert 0 < len(reason.meaning.encode()) <= 123
        assert reason.advice
