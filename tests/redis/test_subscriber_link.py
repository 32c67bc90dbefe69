"""Publications on a link that is subscribed: dispatched as txredisapi does, read by a reader of our own."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from txredisapi import SubscriberProtocol

from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.subscriber_link import SubscriberLink
from tests.redis.memory import resp

Heard = tuple[object, ...]


class Link(SubscriberLink):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.told: list[Heard] = []

    def read_begins(self) -> None:
        self.told.append(("begins",))

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self.told.append((pattern, channel, message))

    def heard(self, reply: Any) -> None:
        self.told.append(("heard", reply))

    def read_ends(self) -> None:
        self.told.append(("ends",))


class Theirs(SubscriberProtocol):
    """txredisapi's own dispatch."""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.told: list[Heard] = []

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        self.told.append((pattern, channel, message))


def up() -> Link:
    link = Link()
    link.makeConnection(StringTransport())
    link.is_up = True
    return link


words = st.one_of(st.binary(max_size=8), st.sampled_from([b"message", b"pmessage", b"subscribe", b"1.5"]))
patterns = words.filter(lambda word: word != b"message")  # which txredisapi takes for the kind of the reply
publications = st.one_of(
    st.tuples(st.just(b"message"), words, words), st.tuples(st.just(b"pmessage"), patterns, words, words)
)


@given(st.lists(publications, min_size=1, max_size=10))
def test_it_dispatches_as_txredisapi_does(replies: list[tuple[bytes, ...]]) -> None:
    """Every publication comes to `messageReceived` with what txredisapi would pass to it."""
    link, theirs = up(), Theirs()
    link.dataReceived(b"".join(resp([*reply]) for reply in replies))
    for reply in replies:
        theirs.replyReceived(list(reply))
    assert link.told == [("begins",), *theirs.told, ("ends",)]


def test_what_is_no_publication_is_heard_in_its_place() -> None:
    """Between the publications around it."""
    link = up()
    link.dataReceived(resp([b"message", b"a", b"1"]) + b"+PONG\r\n" + resp([b"message", b"a", b"2"]))
    assert link.told[1:-1] == [(None, b"a", b"1"), ("heard", b"PONG"), (None, b"a", b"2")]


def test_the_source_of_the_daemon_is_told_by_messageReceived() -> None:
    """Whoever overrides it sees every publication that clients get."""
    told: list[Heard] = []

    class Sink:
        def publish(self, stream: str, payload: bytes) -> None:
            told.append((stream, payload))

        def flush(self) -> None:
            told.append(("flush",))

    source = RedisPubSub(Clock(), None, None, Sink(), None)  # type: ignore[arg-type]  # it makes a link, and is not started
    link = source.make_link()
    assert isinstance(link, SubscriberProtocol)
    source.streams[b"trade@A"] = "trade@A"
    link.is_up = True
    received = link.messageReceived
    link.messageReceived = lambda *what: (told.append(what), received(*what))  # type: ignore[method-assign,assignment]
    link.dataReceived(resp([b"message", b"trade@A", b"1"]))
    assert told == [(None, b"trade@A", b"1"), ("trade@A", b"1"), ("flush",)]
