"""The limit on open files as far as it goes, and what there is room for within it."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.runtime.file_limit import RESERVED_FILES, raise_file_limit, room_for_connections
from tests.strategies import property_test


class Limits:
    """What the operating system grants: the soft and the hard limit, and whether they can be changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, *, fixed: bool = False) -> None:
        self.soft, self.hard, self.fixed = soft, hard, fixed
        monkeypatch.setattr(resource, "getrlimit", self._get)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _get(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def _set(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if self.fixed:
            raise ValueError("not allowed to raise maximum limit")
        self.soft, self.hard = limits


def test_the_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which needs no right."""
    limits = Limits(monkeypatch, 1024, 65536)
    assert raise_file_limit() == 65536
    assert (limits.soft, limits.hard) == (65536, 65536)


def test_a_limit_that_is_none_becomes_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes no more than that by default."""
    limits = Limits(monkeypatch, 1024, resource.RLIM_INFINITY)
    assert raise_file_limit() == 1 << 20
    assert limits.soft == 1 << 20


def test_a_limit_that_cannot_be_raised_is_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """In some sandboxes."""
    Limits(monkeypatch, 1024, 65536, fixed=True)
    assert raise_file_limit() == 1024


@pytest.mark.parametrize(
    ("files", "room"),
    [
        (0, (1, 1)),
        (130, (1, 1)),
        (1024, (784, 112)),
        (65536, (61312, 4096)),
        (1 << 20, (1044352, 4096)),
    ],
)
def test_room_for_connections(files: int, room: tuple[int, int]) -> None:
    """An eighth is for those whose request has not come yet, up to a number that no crowd of clients exceeds."""
    assert room_for_connections(files) == room


@property_test
@given(st.integers(0, 1 << 30))
def test_no_more_connections_than_files(files: int) -> None:
    """However many connect and say nothing, clients that do find room, and the daemon keeps files for itself."""
    clients, handshakes = room_for_connections(files)
    assert clients > 0
    assert handshakes > 0
    assert clients + handshakes == max(2, files - RESERVED_FILES)
