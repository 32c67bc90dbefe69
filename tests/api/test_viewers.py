"""Who may look at the admin port, as far as the port's own tests do not show it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.api.viewers import Viewers

TOKEN = b"0123456789abcdef"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", None])
def test_who_is_on_this_host(peer: str | None) -> None:
    viewers = Viewers(Clock())
    assert viewers.may_look(peer, {}, "")
    assert not viewers.may_look(peer, {"x-forwarded-for": "127.0.0.1"}, "")


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "unknown", ""])
def test_who_is_not(peer: str) -> None:
    assert not Viewers(Clock()).may_look(peer, {"authorization": "Bearer "}, "")


@given(st.text(), st.text())
def test_nothing_else_is_the_token(shown: str, cookie: str) -> None:
    """Whatever is shown: no text raises, and none is taken for it."""
    for token in (TOKEN, b""):
        viewers = Viewers(Clock(), (), token)
        is_it = shown.strip().encode("utf-8", "replace") == token != b""
        assert viewers.may_look("10.0.0.1", {"authorization": f"Bearer {shown}"}, cookie) is is_it


def test_the_scheme_is_bearer_in_any_case() -> None:
    viewers = Viewers(Clock(), (), TOKEN)
    assert viewers.may_look("10.0.0.1", {"authorization": f"bearer  {TOKEN.decode()}"}, "")
    assert not viewers.may_look("10.0.0.1", {"authorization": f"Basic {TOKEN.decode()}"}, "")
    assert viewers.may_look("10.0.0.1", {}, viewers.cookie)
