"""Commands as Redis reads them."""

from __future__ import annotations

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.redis.resp import pack
from tests.strategies import property_test


@property_test
@given(st.lists(st.binary(max_size=40) | st.text(max_size=20), min_size=1, max_size=6))
def test_a_command_is_read_as_it_was_meant(words: list[bytes | str]) -> None:
    """Whatever is in its words, bytes as they are and texts as UTF-8."""
    reader = hiredis.Reader()
    reader.feed(pack(*words))
    assert reader.gets() == [word.encode() if isinstance(word, str) else word for word in words]
    assert reader.gets() is False
