"""What a listener hears becomes what is judged: from when on, at what time, and what was lost."""

from __future__ import annotations

from marketfeed.commands.check.examination import Examination
from marketfeed.commands.check.listening import ChannelsHeard, StreamsHeard
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.selection import StreamSelection

SELECTION = StreamSelection(("trade@*", "*@A_B"))
NOW = 1_790_000_000_000


class Stage:
    """A sink, and what it says."""

    def __init__(self) -> None:
        self.examination = Examination(BUILT_IN, "live:", 262144)
        self.said: list[str] = []
        self.channels = ChannelsHeard(
            SELECTION,
            b"live:",
            self.examination,
            lambda: self.said.append("began"),
            lambda: self.said.append("first"),
            lambda: self.said.append("ended"),
            lambda: NOW * 1_000_000,
        )
        self.streams = StreamsHeard(
            self.examination,
            lambda: self.said.append("began"),
            lambda: self.said.append("first"),
            lambda: NOW * 1_000_000,
        )

    def publish(self, number: int, pattern: bytes = b"live:trade@*") -> None:
        self.channels.arrived()
        self.channels.publication(pattern, b"live:trade@A_B", trade(number))
        self.channels.flush()

    @property
    def verdicts(self) -> dict[str, str]:
        return {each.feature.key: each.verdict for each in self.examination.findings}


def trade(number: int) -> bytes:
    return b'{"e":"trade","t":%d,"m":true,"p":"1","q":"1","s":"A_B","T":%d}' % (number, NOW)


def test_channels() -> None:
    """Each publication counts once, however many patterns cover it, from the moment on at which all is subscribed."""
    stage = Stage()
    stage.publish(1)
    stage.channels.complete()
    for number in (2, 3):
        stage.publish(number)
        stage.publish(number, b"live:*@A_B")
    stage.channels.complete()
    assert stage.said == ["began", "first"]
    assert stage.examination.publications == 2
    assert stage.verdicts["ids"] == stage.verdicts["executed"] == "yes"


def test_a_lost_link() -> None:
    """Is one gap, however often another one is tried; the ids begin anew."""
    stage = Stage()
    stage.channels.lost(0.0)
    stage.channels.complete()
    stage.publish(1)
    for _ in range(3):
        stage.channels.lost(0.0)
    stage.channels.complete()
    stage.publish(7)
    assert stage.examination.gaps == 1
    assert stage.verdicts["ids"] == "yes"


def test_a_refusal() -> None:
    """Ends it, with the server's word."""
    stage = Stage()
    assert not stage.channels.refused(b"live:trade@*", "NOPERM no")
    assert stage.said == ["ended"]
    assert stage.channels.fault == "Redis refuses the subscription to trade@*: NOPERM no"


def test_streams() -> None:
    """What was added while the link was away is read afterwards; what is gone unread is a gap."""
    stage = Stage()
    stage.streams.reached("redis")
    stage.streams.publish("trade@A_B", trade(1), "1-0")
    stage.streams.lost(0, ["trade@A_B"], "redis")
    stage.streams.publish("trade@A_B", trade(2), "2-0")
    assert (stage.examination.gaps, stage.verdicts["ids"]) == (0, "yes")
    stage.streams.missed("trade@A_B", 1.0)
    stage.streams.publish("trade@A_B", trade(9), "9-0")
    assert (stage.examination.gaps, stage.verdicts["ids"]) == (1, "yes")
    assert stage.said == ["began", "first"]
