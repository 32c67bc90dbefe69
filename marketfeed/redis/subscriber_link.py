"""A link on which something is subscribed. What is published comes to `messageReceived`, as txredisapi has it.

1. The replies are read by a reader of our own (see `RedisLink`). A publication never becomes anything but a call.
2. Things are told in the order in which they came: `read_begins` before what came in one read, `read_ends` behind it.
"""

from __future__ import annotations

import hiredis

from marketfeed.redis.link import RedisLink

__all__ = ["SubscriberLink"]


class SubscriberLink(RedisLink):
    """A link that, once it is up, calls `messageReceived` for each publication and `heard` for all else."""

    def dataReceived(self, data: bytes) -> None:
        if not self.is_up:
            super().dataReceived(data)
            return
        self.last_heard = self._clock.seconds()
        self.read_begins()
        replies, message_received = self._replies, self.messageReceived
        try:
            replies.feed(data)
            while (reply := replies.gets()) is not False:
                if type(reply) is list and reply[0] == b"message":
                    message_received(None, reply[1], reply[2])
                elif type(reply) is list and reply[0] == b"pmessage":
                    message_received(reply[1], reply[2], reply[3])
                else:
                    self.heard(reply)
        except hiredis.ProtocolError:
            self.fail("the answer is not in Redis' protocol")
        self.read_ends()

    def read_begins(self) -> None:
        """Something has come on the link; it is about to be told."""

    def messageReceived(self, pattern: bytes | None, channel: bytes, message: bytes) -> None:
        """One publication. `pattern`: the subscription that it comes for, where that is not the channel itself."""
        raise NotImplementedError

    def read_ends(self) -> None:
        """All that came together has been told."""
