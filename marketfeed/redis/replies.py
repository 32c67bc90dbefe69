"""What one read of a link of subscriptions has brought, told one by one in the order in which it came.

A publication never becomes anything but calls: this is the hot path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hiredis

__all__ = ["Channels", "tell"]

_PORTION: Final = 8192
"""Bytes that the reader gets at a time: with each KiB that it is through with it moves all that it has yet to read."""


def tell(
    replies: hiredis.Reader,
    data: bytes,
    published: Callable[[bytes | None, bytes, bytes], None],
    heard: Callable[[Any], None],
) -> None:
    """Call `published` with the pattern, the channel and the payload of each publication, and `heard` with all else.

    `data`: what has come. Raises hiredis' ProtocolError.
    """
    gets = replies.gets
    size = len(data)
    for start in range(0, size, _PORTION):
        replies.feed(data, start, min(_PORTION, size - start))
        while (reply := gets()) is not False:
            if type(reply) is list:
                told = reply[0]
                if told == b"message" or told == b"smessage":
                    published(None, reply[1], reply[2])
                    continue
                if told == b"pmessage":
                    published(reply[1], reply[2], reply[3])
                    continue
            heard(reply)


class Channels:
    """Calls `publish` with what comes on a channel. `streams`: the streams that are wanted, by their channels."""

    __slots__ = ("_publish", "_streams")

    def __init__(self, streams: dict[bytes, str], publish: Callable[[str, bytes], None]) -> None:
        self._streams = streams
        self._publish = publish

    def tell(self, replies: hiredis.Reader, data: bytes, heard: Callable[[Any], None]) -> None:
        """The function `tell` with `received`, of which there is no call."""
        gets = replies.gets
        publish = self._publish
        size = len(data)
        for start in range(0, size, _PORTION):
            replies.feed(data, start, min(_PORTION, size - start))
            while (reply := gets()) is not False:
                if type(reply) is list:
                    told = reply[0]
                    if told == b"message" or told == b"smessage" or told == b"pmessage":
                        stream = self._streams.get(reply[-2])
                        if stream is not None:
                            publish(stream, reply[-1])
                        continue
                heard(reply)

    def received(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        """One publication, as `SubscriberLink.messageReceived` has it."""
        stream = self._streams.get(channel)
        if stream is not None:
            self._publish(stream, message)
