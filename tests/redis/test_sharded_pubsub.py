"""The source on one of several servers of a cluster, each of which has the channels of some slots."""

from __future__ import annotations

from marketfeed.redis.pubsub import WINDOW
from marketfeed.redis.topology import key_slot
from tests.redis.memory import resp
from tests.redis.test_pubsub import NOW, PONGS, World, confirmation

A, B, C = "trade@A", "trade@B", "trade@C"
SAME, ALSO = "trade@{A}", "depth@{A}"


def message(channel: str, payload: bytes) -> bytes:
    return resp([b"smessage", channel.encode(), payload])


def moved(channel: str) -> bytes:
    return b"-MOVED %d other:1\r\n" % key_slot(channel.encode())


class Shard(World):
    """One of the servers; `doubts`: what it was said to say that it does not have."""

    def __init__(self) -> None:
        self.doubts: list[str] = []
        super().__init__(doubt=self.doubts.append)

    def up(self, *streams: str) -> Shard:
        self.start().connect()
        for stream in streams:
            self.source.want(stream)
            self.server.answer(confirmation("ssubscribe", stream))
        self.sink.take()
        return self


def test_each_slot_has_a_command_of_its_own() -> None:
    """Several are on their way at a time, and no channel twice."""
    shard = Shard().start()
    for stream in (SAME, ALSO, B, C):
        shard.source.want(stream)
    shard.connect()
    asked = shard.asked()
    assert sorted(asked) == sorted([("SSUBSCRIBE", ALSO, SAME), ("SSUBSCRIBE", B), ("SSUBSCRIBE", C)])
    shard.source.unwant(B)
    shard.source.want("trade@D")
    assert shard.asked() == [("SSUBSCRIBE", "trade@D")]
    for _, *channels in asked:
        shard.server.say(confirmation("ssubscribe", *channels))
    assert shard.asked() == [("SUNSUBSCRIBE", B)]
    shard.server.say(confirmation("ssubscribe", "trade@D") + confirmation("sunsubscribe", B) + message(C, b"1"))
    events = shard.sink.take()
    assert sorted(map(str, events[1:-2])) == sorted(str(("confirmed", each)) for each in (SAME, ALSO, C))
    assert events[-2:] == [("confirmed", "trade@D"), ("publish", C, b"1")]
    shard.stop()


def test_so_many_are_on_their_way() -> None:
    shard = Shard().start()
    streams = [f"trade@M{number}" for number in range(2 * WINDOW)]
    for stream in streams:
        shard.source.want(stream)
    shard.connect()
    asked = shard.asked()
    assert len(asked) == WINDOW
    shard.server.say(confirmation("ssubscribe", *asked[0][1:]) + confirmation("ssubscribe", *asked[1][1:]))
    assert len(shard.asked()) == 2
    shard.stop()


def test_what_the_server_does_not_have_is_elsewhere() -> None:
    """Where nobody knows, it is out of reach, and asked for again each second; others are not concerned."""
    shard = Shard().start().connect()
    for stream in (A, B):
        shard.source.want(stream)
    first, second = shard.asked()
    shard.server.say(moved(first[1]) + confirmation("ssubscribe", second[1]))
    assert shard.doubts == [f"MOVED {key_slot(first[1].encode())} other:1"]
    assert shard.sink.take() == [("reached",), ("lost", NOW * 1000), ("confirmed", second[1])]
    assert shard.sink.named == [first[1]]
    assert shard.asked() == []
    shard.clock.advance(1)
    assert shard.asked() == [("PING",), ("SSUBSCRIBE", first[1])]
    shard.server.say(PONGS[0] + b"-CLUSTERDOWN The cluster is down\r\n")
    assert shard.doubts[1:] == ["CLUSTERDOWN The cluster is down"]
    shard.clock.advance(1)
    assert shard.asked() == [("PING",), ("SSUBSCRIBE", first[1])]
    shard.server.say(PONGS[0] + confirmation("ssubscribe", first[1]))
    assert shard.sink.take()[-1] == ("confirmed", first[1])
    shard.stop()


def test_what_is_wanted_elsewhere_meanwhile_is_not_lost() -> None:
    """For somebody knows where it is."""
    shard = Shard().start().connect()
    shard.source.want(A)
    shard.asked()
    shard.source._doubt = lambda fault: shard.source.unwant(A)
    shard.server.say(moved(A))
    assert shard.sink.take() == [("reached",)]
    shard.clock.advance(1)
    assert shard.asked() == [("PING",)]
    shard.stop()


def test_what_the_server_ends_by_itself() -> None:
    """It is lost since the server was last good, and what follows is none of it; the others go on."""
    shard = Shard().up(A, B)
    shard.clock.advance(3)
    shard.asked()
    ended = confirmation("sunsubscribe", A)
    shard.server.say(message(A, b"1") + ended + message(A, b"2") + message(B, b"3"))
    assert shard.sink.take() == [("publish", A, b"1"), ("publish", B, b"3"), ("lost", NOW * 1000)]
    assert shard.sink.named == [A]
    assert shard.doubts == [""]
    shard.server.say(PONGS[0])
    shard.clock.advance(1)
    assert ("SSUBSCRIBE", A) in shard.asked()
    shard.stop()


def test_it_is_not_lost_later_than_the_server_was_certain() -> None:
    shard = Shard().up(A)
    shard.certain_at = NOW - 7.5
    shard.server.say(confirmation("sunsubscribe", A))
    assert shard.sink.take() == [("lost", NOW * 1000 - 7500)]
    shard.server.cut()
    assert shard.sink.take() == [("lost", NOW * 1000 - 7500)]
    shard.stop()


def test_an_end_that_overtakes_our_own() -> None:
    """The answer to ours is then an error that is nobody else's."""
    shard = Shard().up(A, B)
    shard.source.unwant(A)
    shard.source.want(C)
    assert shard.asked() == [("SUNSUBSCRIBE", A), ("SSUBSCRIBE", C)]
    shard.server.say(confirmation("sunsubscribe", A) + moved(A) + confirmation("ssubscribe", C) + message(C, b"1"))
    assert shard.sink.take() == [("confirmed", C), ("publish", C, b"1")]
    assert shard.doubts == []
    shard.stop()


def test_a_script_that_runs_keeps_the_order() -> None:
    """What was refused for it is asked for again when it is over, whatever was answered in between."""
    shard = Shard().start().connect()
    for stream in (A, B):
        shard.source.want(stream)
    first, second = shard.asked()
    shard.server.say(b"-BUSY a script runs\r\n" + confirmation("ssubscribe", second[1]))
    shard.clock.advance(1)
    assert shard.asked() == [("PING",)]
    shard.server.say(PONGS[0])
    assert shard.asked() == [first]
    shard.server.say(confirmation("ssubscribe", first[1]))
    assert shard.sink.take() == [("reached",), ("confirmed", second[1]), ("confirmed", first[1])]
    shard.stop()


def test_a_channel_that_is_not_permitted() -> None:
    """Where it is alone in its slot, and where it is not."""
    shard = Shard().start().connect()
    for stream in (SAME, ALSO, B):
        shard.source.want(stream)
    for _ in range(8):
        for _, *channels in shard.asked():
            is_refused = SAME in channels or B in channels
            shard.server.say(b"-NOPERM no\r\n" if is_refused else confirmation("ssubscribe", *channels))
    assert sorted(shard.sink.take()) == [
        ("confirmed", ALSO), ("reached",), ("refused", B, "NOPERM no"), ("refused", SAME, "NOPERM no"),
    ]  # fmt: skip
    shard.stop()
