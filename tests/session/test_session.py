"""The conversation: every method and every error as docs/protocol.md#requests has them, and requests in any order.

The hub is the real one, over a source that the test drives.
"""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import BadToken
from marketfeed.boundaries import Archive, Entry
from marketfeed.hub.hub import Hub
from marketfeed.hub.readiness import CONFIRM_SECONDS
from marketfeed.model.identity import ANONYMOUS, Identity, parse_patterns
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import LossPolicy, StreamKind
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.bounded_log import BoundedLog
from marketfeed.runtime.logs import Log
from marketfeed.session.context import Connection, SessionContext
from marketfeed.session.limits import SessionLimits
from marketfeed.session.session import Session
from marketfeed.wire.close_codes import INTERNAL_ERROR, TOO_MANY_REQUESTS, CloseReason
from marketfeed.wire.dialects import Dialect
from marketfeed.wire.frames import text_frame
from marketfeed.wire.messages import ServerShutdown
from tests.conftest import LogCapture
from tests.fakes import FakeSource, FakeSubscriber
from tests.limits import hub_limits, session_limits
from tests.rooms import trade, turn_of
from tests.strategies import json_texts, property_test

A, B, C = "trade@A", "depth@A", "ticker@B"
MANY = session_limits(request_burst=100_000)
KINDS = StreamKinds((*BUILT_IN, StreamKind("orders", LossPolicy.KEEP, private=True)))
QUEUED = 16  # requests that may wait behind a SUBSCRIBE before the client is not read from


class Client:
    """A connection below a session, and what reached its peer."""

    def __init__(
        self,
        dialect: Dialect = Dialect.RAW,
        limits: SessionLimits = MANY,
        identity: Identity = ANONYMOUS,
        tokens: dict[str, Identity] | None = None,
        archive: Archive | None = None,
        beside: Client | None = None,
        kinds: StreamKinds = KINDS,
        **hub: Any,
    ) -> None:
        if beside is not None:
            self.clock, self.hub, self.source = beside.clock, beside.hub, beside.source
        else:
            self.clock = Clock()
            self.hub = Hub(self.clock, hub_limits(**{"linger": 0.0, **hub}), lambda: 1e9 + self.clock.seconds())
            self.source = FakeSource(self.hub)
            self.source.archive = archive
            self.hub.feed_from(self.source)
            Service.startService(self.hub)
        self.client_id = "7"
        self.outbox = FakeSubscriber(on_overflow=self._overflow)
        self.closed_with: CloseReason | None = None
        self.reading = True
        self.tokens = tokens or {}
        self.renewed: list[Identity] = []
        self.refusals = Refusals(self.clock)
        self.lines = BoundedLog(self.clock, Log(), 100)
        context = SessionContext(
            hub=self.hub,
            kinds=kinds,
            limits=limits,
            now=self.clock.seconds,
            verify=self._verify,
            refusals=self.refusals,
            lines=self.lines,
        )
        self.session = Session(self, dialect, context, identity)

    # What the session asks for.

    def send_text(self, text: bytes) -> None:
        self.outbox.write(text_frame(text))

    def close_with(self, reason: CloseReason) -> None:
        self.closed_with = reason
        self.session.end()

    def renew(self, identity: Identity) -> None:
        self.renewed.append(identity)

    def _verify(self, token: str) -> Identity:
        if token not in self.tokens:
            raise BadToken("the token has expired")
        return self.tokens[token]

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def _overflow(self) -> None:
        self.session.end()

    # What the test asks for.

    @property
    def got(self) -> list[Any]:
        """All messages since the last time."""
        messages = self.outbox.messages
        self.outbox.writes.clear()
        return messages

    def say(self, request: object) -> None:
        self.session.receive(request if isinstance(request, bytes) else json.dumps(request).encode())

    def ask(self, request: object) -> Any:
        """Send a request; the only message that came after it."""
        self.say(request)
        (reply,) = self.got
        return reply

    def set(self, name: str, value: bool = True) -> None:
        """Set a property."""
        assert "error" not in json.dumps(self.ask({"method": "SET_PROPERTY", "params": [name, value]}))

    def watch(self, *streams: str, **fields: object) -> list[Any]:
        """Subscribe to streams that are confirmed; all that comes then."""
        self.subscribe(*streams, **fields)
        self.source.confirm()
        return self.got

    def subscribe(self, *streams: str, **fields: object) -> None:
        self.say({"method": "SUBSCRIBE", "params": streams, "id": 1, **fields})

    def assert_gone(self) -> None:
        """Nothing of this client is left in the hub."""
        assert not self.hub.streams
        assert not self.source.wanted
        self.refusals.stopService()
        assert not self.clock.getDelayedCalls()


if TYPE_CHECKING:
    _connection: Connection = Client()


def reply(dialect: Dialect, result: object, **fields: object) -> object:
    if dialect is Dialect.HOUSE:
        return {"stream": "!reply", "data": {"e": "reply", "result": result, **fields}}
    return {"result": result, **fields}


def error(dialect: Dialect, code: int, **fields: object) -> object:
    """An error reply without its text."""
    if dialect is Dialect.HOUSE:
        return {"stream": "!error", "data": {"e": "error", "code": code, **fields}}
    return {"error": {"code": code}, **fields}


def without_text(message: Any) -> Any:
    fault = message.get("error") or message["data"]
    assert fault.pop("msg")
    return message


dialects = pytest.mark.parametrize("dialect", list(Dialect))


def turns(client: Client) -> None:
    """Let everything happen that does not wait for time to pass."""
    while any(call.getTime() <= client.clock.seconds() for call in client.clock.getDelayedCalls()):
        turn_of(client.clock)
    client.outbox.writes.clear()


def pings(client: Client) -> int:
    """How many requests that cost one are admitted now."""
    client.got.clear()
    for count in range(1000):
        if client.ask({"method": "PING"}) != {"result": "PONG"}:
            return count
    raise AssertionError("there is no end to it")


def book(levels: int) -> bytes:
    sides = {
        side: [[f"{number + start}.25", "10.5"] for number in range(levels)] for side, start in (("b", 1), ("a", 9000))
    }
    return json.dumps({"e": "depth", "snapshot": True, "U": 1, "u": 1, **sides}).encode()


class Reader:
    """A client that reads what it gets, and holds publications against the answers before them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.asked: dict[int, tuple[str, Any]] = {}
        self.answers: list[object] = []
        self.streams: set[str] = set()
        self.properties = {"combined": False, "offsets": False, "snapshot": False}

    def ask(self, number: int, method: str, params: Any) -> None:
        self.asked[number] = method, params
        self.client.say({"method": method, "id": number, **({} if params is None else {"params": params})})

    def publish(self, stream: str, number: int) -> None:
        self.read()
        kind = stream.partition("@")[0]
        self.client.source.publish(stream, PUBLICATIONS[kind] % number)
        publications = [message for message in self.client.got if "e" in message.get("data", message)]
        assert len(publications) == (stream in self.streams)
        for message in publications:
            assert ("stream" in message) == self.properties["combined"]
            assert ("offset" in message) == (self.properties["combined"] and self.properties["offsets"])

    def read(self) -> None:
        for message in self.client.got:
            if "e" in message.get("data", message):
                continue  # a state
            self.answers.append(message)
            if "id" not in message:
                lost = message["error"]["msg"].partition("cover ")[2].split(", ")
                self.streams -= set(lost)
                continue
            number = next(iter(self.asked))
            assert message["id"] == number
            method, params = self.asked.pop(number)
            if "error" not in message:
                self._answered(method, params)

    def _answered(self, method: str, params: Any) -> None:
        if method == "SUBSCRIBE":
            self.streams |= set(params)
        elif method == "UNSUBSCRIBE":
            self.streams -= set(params)
        elif method == "SET_PROPERTY":
            self.properties[params[0]] = params[1]


PUBLICATIONS = {
    "trade": b'{"e":"trade","t":%d,"m":true,"p":"1","q":"2","s":"A"}',
    "depth": b'{"e":"depth","t":%d,"a":[],"b":[]}',
    "ticker": b'{"e":"ticker","t":%d,"c":"1","s":"B"}',
}


class TestMethods:
    @dialects
    def test_subscribe_is_answered_once_the_source_has_confirmed(self, dialect: Dialect) -> None:
        """The reply precedes the first publication."""
        client = Client(dialect)
        client.subscribe(A, B)
        client.source.confirm(A)
        assert not client.got
        client.source.confirm(B)
        client.source.publish(A, trade())
        answer, publication = client.got
        assert answer == reply(dialect, None, id=1)
        assert publication == (
            json.loads(trade()) if dialect is Dialect.RAW else {"stream": A, "data": json.loads(trade())}
        )

    @dialects
    def test_list_subscriptions(self, dialect: Dialect) -> None:
        """As this client spelled them, in the order in which they were subscribed."""
        client = Client(dialect)
        assert client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}) == reply(dialect, [], id=3)
        client.subscribe(C, "a@trade")
        client.source.confirm()
        client.subscribe(A, C, "a@depth@100ms")
        client.source.confirm()
        client.got.clear()
        spellings = [C, "a@trade", A, "a@depth@100ms"]
        assert client.ask({"method": "LIST_SUBSCRIPTIONS", "id": 3}) == reply(dialect, spellings, id=3)
        assert client.session.subscriptions == spellings

    @dialects
    def test_ping(self, dialect: Dialect) -> None:
        """PONG; params, if there are any, mean nothing."""
        client = Client(dialect)
        assert client.ask({"method": "PING", "id": "x", "params": 5}) == reply(dialect, "PONG", id="x")

    @dialects
    def test_unsubscribe(self, dialect: Dialect) -> None:
        """Nothing more of the stream comes after the reply, and the source is not asked for it any more."""
        client = Client(dialect)
        client.subscribe(A, C)
        client.source.confirm()
        client.got.clear()
        assert client.ask({"method": "UNSUBSCRIBE", "params": [A, B], "id": 2}) == reply(dialect, None, id=2)
        client.hub.publish(A, trade())
        client.hub.flush()
        assert not client.got
        assert list(client.source.wanted) == [C]

    def test_two_spellings_of_a_stream_are_two_subscriptions(self) -> None:
        """Each publication comes twice, and one spelling can go without the other."""
        client = Client(Dialect.COMBINED)
        client.subscribe(A, "a@trade")
        client.source.confirm()
        client.source.publish(A, trade())
        assert [message.get("stream") for message in client.got] == [None, A, "a@trade"]
        client.say({"method": "UNSUBSCRIBE", "params": [A]})
        client.source.publish(A, trade())
        assert [message.get("stream") for message in client.got] == [None, "a@trade"]

    def test_subscribing_again_changes_nothing(self) -> None:
        """It is answered, and publications still come once."""
        client = Client()
        client.subscribe(A, A)
        client.source.confirm()
        assert len(client.got) == 1
        client.subscribe(A)
        assert client.got == [{"result": None, "id": 1}]
        client.source.publish(A, trade())
        assert len(client.got) == 1

    def test_no_streams_are_fine(self) -> None:
        """A list may be empty."""
        client = Client()
        assert client.ask({"method": "SUBSCRIBE", "params": [], "id": 1}) == {"result": None, "id": 1}
        assert client.ask({"method": "UNSUBSCRIBE", "params": [], "id": 1}) == {"result": None, "id": 1}

    def test_the_property_combined_changes_the_shape_of_what_follows(self) -> None:
        """Publications that came before keep theirs."""
        client = Client(Dialect.RAW)
        client.subscribe(A)
        client.source.confirm()
        client.got.clear()
        data = json.loads(trade())
        get = {"method": "GET_PROPERTY", "params": ["combined"], "id": 5}
        assert client.ask(get) == {"result": False, "id": 5}
        client.hub.publish(A, trade())
        client.say({"method": "SET_PROPERTY", "params": ["combined", True], "id": 4})
        client.source.publish(A, trade())
        assert client.got == [data, {"result": None, "id": 4}, {"stream": A, "data": data}]
        assert client.ask(get) == {"result": True, "id": 5}
        client.say({"method": "SET_PROPERTY", "params": ["combined", False], "id": 4})
        client.source.publish(A, trade())
        assert client.got == [{"result": None, "id": 4}, data]
        assert client.session.subscriptions == [A]

    def test_on_the_house_path_everything_is_combined(self) -> None:
        """The property says so, and cannot be changed."""
        client = Client(Dialect.HOUSE)
        get = {"method": "GET_PROPERTY", "params": ["combined"], "id": 5}
        assert client.ask(get) == reply(Dialect.HOUSE, True, id=5)
        answer = client.ask({"method": "SET_PROPERTY", "params": ["combined", False], "id": 4})
        assert without_text(answer) == error(Dialect.HOUSE, 0, id=4)

    @dialects
    def test_an_event_is_spelled_as_the_dialect_has_it(self, dialect: Dialect) -> None:
        """Raw clients get the data alone."""
        data = {"e": "serverShutdown", "E": 5, "reconnectAfter": 6}
        event = json.loads(Client(dialect).session.event(ServerShutdown(5, 6)))
        assert event == (data if dialect is Dialect.RAW else {"stream": "!serverShutdown", "data": data})

    def test_who_is_sent_away_gets_what_waits_for_its_time(self) -> None:
        """And so does whoever waits for the same."""
        client = Client()
        client.watch("ticker@B@1000ms", A)
        client.source.publish(C, b'{"e":"ticker","c":"1","s":"B"}', b'{"e":"ticker","c":"2","s":"B"}')
        assert [data["c"] for data in client.got] == ["1"]
        client.session.part()
        assert [data["c"] for data in client.got] == ["2"]
        client.session.part()
        assert client.got == []
        client.session.end()


class TestIds:
    @dialects
    @pytest.mark.parametrize("request_id", [0, -1, 2**63 - 1, -(2**63), "", "x" * 36, "é" * 36, None])
    def test_the_reply_has_the_id_of_the_request(self, dialect: Dialect, request_id: object) -> None:
        """Integers, strings and null come back as they are."""
        assert Client(dialect).ask({"method": "PING", "id": request_id}) == reply(dialect, "PONG", id=request_id)

    @dialects
    def test_no_id_in_the_request_is_none_in_the_reply(self, dialect: Dialect) -> None:
        """The field is absent, not null; an error too has none."""
        assert Client(dialect).ask({"method": "PING"}) == reply(dialect, "PONG")
        assert without_text(Client(dialect).ask({"method": "PINK"})) == error(dialect, 2)

    @pytest.mark.parametrize("method", ["SUBSCRIBE", "UNSUBSCRIBE"])
    def test_without_an_id_a_change_on_the_house_path_is_quiet(self, method: str) -> None:
        """Existing front ends expect no reply; one with an id, even null, is answered, and so is one that fails."""
        client = Client(Dialect.HOUSE)
        client.say({"method": method, "params": [A]})
        client.source.confirm()
        assert not client.got
        assert client.ask({"method": method, "params": [A], "id": None}) == reply(Dialect.HOUSE, None, id=None)
        assert without_text(client.ask({"method": method, "params": ["A"]})) == error(Dialect.HOUSE, 2)

    @pytest.mark.parametrize("dialect", [Dialect.COMBINED, Dialect.RAW])
    def test_without_an_id_a_change_elsewhere_is_answered(self, dialect: Dialect) -> None:
        """As Binance does."""
        assert Client(dialect).ask({"method": "UNSUBSCRIBE", "params": [A]}) == {"result": None}


class TestErrors:
    @dialects
    @pytest.mark.parametrize(
        ("request_text", "code", "says"),
        [
            (b"nonsense", 3, "byte 1"),
            (b"[]", 2, "a JSON object with a method"),
            (b'{"method":"ping"}', 2, "method must be one of AUTH, SUBSCRIBE"),
            (b'{"method":"__init__"}', 2, "method must be one of"),
            (b'{"method":"SUBSCRIBE"}', 2, "params is missing"),
            (b'{"method":"SUBSCRIBE","params":["trade@A","candle@A"]}', 2, "params[1]: bad stream name 'candle@A'"),
            (b'{"method":"SUBSCRIBE","params":["trade@A"],"since":5}', 2, "since must be an object"),
            (b'{"method":"UNSUBSCRIBE"}', 2, "params is missing"),
            (b'{"method":"HISTORY"}', 2, "params must be one stream"),
            (b'{"method":"AUTH","params":["a","b"]}', 2, "params must be one token"),
            (b'{"method":"SET_PROPERTY"}', 2, "params must be a property and its value"),
            (b'{"method":"SET_PROPERTY","params":["colour",true]}', 0, "unknown property: expected one of combined"),
            (b'{"method":"SET_PROPERTY","params":["offsets",1]}', 1, "the property offsets must be true or false"),
            (b'{"method":"GET_PROPERTY"}', 2, "params must be one property"),
        ],
        ids=lambda value: repr(value)[:60],
    )
    def test_what_is_wrong_is_said(self, dialect: Dialect, request_text: bytes, code: int, says: str) -> None:
        """The code, and what would be right; the connection stays as it was. All that fields may hold: `requests`."""
        client = Client(dialect)
        answer = client.ask(request_text)
        fault = answer["data"] if dialect is Dialect.HOUSE else answer["error"]
        assert says in fault["msg"]
        assert without_text(answer) == error(dialect, code)
        assert client.closed_with is None
        assert not client.source.wanted

    def test_a_subscribe_takes_effect_whole_or_not_at_all(self) -> None:
        """One bad name, and none of the good ones is subscribed."""
        client = Client()
        assert without_text(client.ask({"method": "SUBSCRIBE", "params": [A, "x"], "id": 1})) == error(
            Dialect.RAW, 2, id=1
        )
        assert not client.source.calls
        assert not client.session.subscriptions

    def test_an_unsubscribe_takes_effect_whole_or_not_at_all(self) -> None:
        """The same the other way."""
        client = Client()
        client.subscribe(A)
        client.source.confirm()
        client.say({"method": "UNSUBSCRIBE", "params": [A, "x"], "id": 2})
        assert client.session.subscriptions == [A]

    def test_the_limit_of_a_connection(self) -> None:
        """As many as allowed, counting each spelling and none twice; one more is error 4, and changes nothing."""
        client = Client(limits=session_limits(max_streams=3))
        client.subscribe(A, A, "a@trade")
        client.source.confirm()
        client.subscribe(A, C)
        client.source.confirm()
        client.got.clear()
        answer = client.ask({"method": "SUBSCRIBE", "params": [A, B], "id": 1})
        assert answer == {
            "error": {"code": 4, "msg": "too many subscriptions: at most 3 on a connection"},
            "id": 1,
        }
        assert client.session.subscriptions == [A, "a@trade", C]
        client.say({"method": "UNSUBSCRIBE", "params": [C]})
        client.subscribe(B)
        client.source.confirm()
        assert client.got == [{"result": None}, {"result": None, "id": 1}]

    def test_the_limit_of_the_server(self) -> None:
        """A stream too many for the whole process is error 4 too; one that it has already is fine."""
        client = Client(max_distinct_streams=1)
        client.subscribe(A)
        client.source.confirm()
        client.subscribe("a@trade")
        client.subscribe("a@trade", B)
        *_, answer = client.got
        assert without_text(answer) == error(Dialect.RAW, 4, id=1)
        assert client.session.subscriptions == [A, "a@trade"]


def depth(first: int, last: int, *, snapshot: bool = False, price: str = "1.0") -> bytes:
    kind = b',"snapshot":true' if snapshot else b""
    return b'{"e":"depth","U":%d,"u":%d,"a":[["%b","5"]],"b":[]%b}' % (first, last, price.encode(), kind)


class PendingArchive:
    """An archive that answers when the test says so: `asked` are those who wait."""

    def __init__(self) -> None:
        self.asked: list[Deferred[list[Entry] | None]] = []

    def since(self, stream: str, after: str, until: str, max_bytes: int) -> Deferred[list[Entry] | None]:
        return succeed(None)

    def newest(self, stream: str, limit: int, max_bytes: int, until: str | None = None) -> Deferred[list[Entry] | None]:
        self.asked.append(Deferred())
        return self.asked[-1]


if TYPE_CHECKING:
    _archive: Archive = PendingArchive()


class TestOffsets:
    @pytest.mark.parametrize("dialect", [Dialect.HOUSE, Dialect.COMBINED])
    def test_envelopes_say_the_offset(self, dialect: Dialect) -> None:
        """From when the property is set, until it is taken back; each publication has another one."""
        client = Client(dialect)
        client.watch(A)
        client.set("offsets")
        client.source.publish(A, trade(1), trade(2))
        first, second = client.got
        assert list(first) == ["stream", "data", "offset"]
        assert first["offset"] != second["offset"]
        assert client.ask({"method": "GET_PROPERTY", "params": ["offsets"], "id": 1}) == reply(dialect, True, id=1)
        client.set("offsets", False)
        client.source.publish(A, trade(3))
        assert client.got == [{"stream": A, "data": json.loads(trade(3))}]

    def test_bare_data_have_no_place_for_it(self) -> None:
        """The property is accepted, and has its effect once there are envelopes."""
        client = Client(Dialect.RAW)
        client.watch(A)
        client.set("offsets")
        client.source.publish(A, trade())
        assert client.got == [json.loads(trade())]
        assert client.ask({"method": "GET_PROPERTY", "params": ["offsets"]}) == {"result": True}
        client.set("combined")
        client.source.publish(A, trade())
        (message,) = client.got
        assert message["offset"]


class TestResume:
    def resumed(self, dialect: Dialect) -> tuple[Client, list[str]]:
        """A client that has seen three trades, and what their offsets are; its stream is held by another spelling."""
        client = Client(dialect)
        if dialect is Dialect.RAW:
            client.set("combined")
        client.set("offsets")
        client.watch(A, "a@trade")
        client.source.publish(A, *(trade(number) for number in range(1, 4)))
        offsets = [message["offset"] for message in client.got if message["stream"] == A]
        if dialect is Dialect.RAW:
            client.set("combined", False)
        client.ask({"method": "UNSUBSCRIBE", "params": [A], "id": 9})
        return client, offsets

    @dialects
    @pytest.mark.parametrize("seen", [1, 2, 3])
    def test_what_was_missed_follows_the_reply(self, dialect: Dialect, seen: int) -> None:
        """Which says so beside the result, in an envelope on the house path; then the live stream."""
        client, offsets = self.resumed(dialect)
        client.subscribe(A, since={A: offsets[seen - 1]})
        client.source.publish(A, trade(4))
        answer, *publications = client.got
        assert answer == reply(dialect, None, id=1, recovered={A: True})
        mine = [each for each in publications if dialect is Dialect.RAW or each["stream"] == A]
        numbers = [each["t"] if dialect is Dialect.RAW else each["data"]["t"] for each in mine]
        assert numbers == [*range(seen + 1, 4), *([4, 4] if dialect is Dialect.RAW else [4])]
        assert client.session.subscriptions == ["a@trade", A]

    @dialects
    @pytest.mark.parametrize("offset", ["", "nonsense", "0-1", "9" * 500])
    def test_what_cannot_be_recovered(self, dialect: Dialect, offset: str) -> None:
        """It is said; the stream is subscribed all the same, and nothing old comes."""
        client, _ = self.resumed(dialect)
        client.subscribe(A, C, since={A: offset})
        client.source.confirm()
        assert client.got == [reply(dialect, None, id=1, recovered={A: False})]
        assert client.session.subscriptions == ["a@trade", A, C]

    def test_each_stream_is_answered_for(self) -> None:
        """Those in `since`, as this client spelled them, and no others."""
        client, offsets = self.resumed(Dialect.COMBINED)
        client.subscribe(A, B, C, since={C: "x", A: offsets[1]})
        client.source.confirm()
        answer, missed = client.got
        assert answer["recovered"] == {C: False, A: True}
        assert missed == {"stream": A, "data": json.loads(trade(3)), "offset": offsets[2]}

    def test_on_the_house_path_it_is_answered_without_an_id_too(self) -> None:
        """Whoever asks whether all is there wants to know."""
        client, offsets = self.resumed(Dialect.HOUSE)
        client.say({"method": "SUBSCRIBE", "params": [A], "since": {A: offsets[2]}})
        assert client.got == [{"stream": "!reply", "data": {"e": "reply", "result": None, "recovered": {A: True}}}]

    @pytest.mark.parametrize("since", [None, {}])
    def test_since_nothing_is_no_question(self, since: object) -> None:
        """The reply is the ordinary one."""
        client = Client()
        assert client.watch(A, since=since) == [{"result": None, "id": 1}]

    def test_what_is_subscribed_already_has_missed_nothing(self) -> None:
        """Error 2, and nothing is subscribed."""
        client, _ = self.resumed(Dialect.RAW)
        answer = client.ask({"method": "SUBSCRIBE", "params": [A, "a@trade"], "since": {"a@trade": "x"}, "id": 1})
        assert without_text(answer) == error(Dialect.RAW, 2, id=1)
        assert client.session.subscriptions == ["a@trade"]

    def test_what_would_be_too_much_is_not_recovered(self) -> None:
        """A client that it would end as slow is better off without."""
        client, offsets = self.resumed(Dialect.COMBINED)
        client.outbox.limit = 700
        client.subscribe(A, since={A: offsets[0]})
        assert client.got == [reply(Dialect.COMBINED, None, id=1, recovered={A: False})]

    @dialects
    def test_what_is_recovered_leaves_room_for_the_reply(self, dialect: Dialect) -> None:
        """A client that is behind is not ended by it, however exactly it would fit: it would come back for the same."""
        answers = set()
        for limit in range(400, 900):
            client, offsets = self.resumed(dialect)
            client.outbox.stall()
            client.outbox.limit = limit
            client.subscribe(A, since={A: offsets[1]})
            assert client.outbox.overflows == 0
            client.outbox.drain()
            answer, *missed = client.got
            is_recovered = (answer["data"] if dialect is Dialect.HOUSE else answer)["recovered"][A]
            assert len(missed) == is_recovered
            answers.add(is_recovered)
        assert answers == {True, False}


class TestState:
    def known(self, dialect: Dialect) -> Client:
        """A client that has, under other spellings, what has made up a book and a ticker."""
        client = Client(dialect)
        client.watch("a@depth", "b@ticker")
        client.source.publish(B, depth(1, 5, snapshot=True), depth(6, 6, price="2.0"))
        client.source.publish(C, b'{"e":"ticker","c":"7","s":"B"}')
        client.got.clear()
        return client

    @dialects
    def test_the_state_follows_the_reply(self, dialect: Dialect) -> None:
        """The book as one snapshot, the newest ticker; nothing of streams that have no state."""
        client = self.known(dialect)
        client.set("snapshot")
        answer, ticker, book = client.watch(C, A, B)
        assert answer == reply(dialect, None, id=1)
        if dialect is not Dialect.RAW:
            assert (ticker["stream"], book["stream"]) == (C, B)
            ticker, book = ticker["data"], book["data"]
        assert ticker == {"e": "ticker", "c": "7", "s": "B"}
        assert (book["U"], book["u"], book["snapshot"]) == (6, 6, True)
        assert book["a"] == [["1.0", "5"], ["2.0", "5"]]

    def test_nobody_else_gets_it(self) -> None:
        """Existing clients do not expect it."""
        assert self.known(Dialect.COMBINED).watch(B, C) == [{"result": None, "id": 1}]

    def test_states_that_are_too_large_are_an_error(self) -> None:
        """Error 4, nothing is subscribed, at once or late; fewer streams will do, and what waits behind it goes on."""
        client = self.known(Dialect.COMBINED)
        client.set("snapshot")
        client.outbox.limit = 700
        client.subscribe(B, C, A)
        client.say({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        client.source.confirm()
        late, behind = client.got
        at_once = client.ask({"method": "SUBSCRIBE", "params": [B, C], "id": 1})
        assert late == at_once
        assert "larger than --client-queue; subscribe to fewer" in late["error"]["msg"]
        assert without_text(late) == error(Dialect.COMBINED, 4, id=1)
        assert behind == {"result": ["a@depth", "b@ticker"], "id": 2}
        assert [message.get("stream") for message in client.watch(C)] == [None, C]

    def test_a_client_that_ends_before_its_state_is_looked_at(self) -> None:
        """What is pending goes out first, and is too much: there is nobody to refuse the states to."""
        client = self.known(Dialect.COMBINED)
        client.set("snapshot")
        client.hub.publish(B, depth(7, 7))
        client.outbox.stall()
        client.outbox.limit = 0
        client.subscribe(B, C)
        assert client.outbox.overflows == 1
        assert not client.outbox.late
        client.assert_gone()

    def test_a_publication_missed_is_not_followed_by_a_state(self) -> None:
        """What is recovered brings the client there by itself."""
        client = Client(Dialect.COMBINED)
        client.set("snapshot")
        client.set("offsets")
        client.watch("a@depth", B)
        client.source.publish(B, depth(1, 5, snapshot=True))
        offset = client.got[0]["offset"]
        client.ask({"method": "UNSUBSCRIBE", "params": [B]})
        client.source.publish(B, depth(6, 6))
        client.got.clear()
        _, missed = client.watch(B, since={B: offset})
        assert missed["data"] == json.loads(depth(6, 6))


class TestRewind:
    def rewound(self, dialect: Dialect, count: int = 3, **limits: Any) -> Client:
        """A client beside one who watches, of whose streams so much was published."""
        other = Client(dialect)
        other.watch(A, C)
        for number in range(1, count + 1):
            other.source.publish(A, trade(number))
        return Client(dialect, beside=other, limits=session_limits(request_burst=100, request_rate=1, **limits))

    @dialects
    def test_the_reply_says_how_many_follow(self, dialect: Dialect) -> None:
        """For each stream; on the house path without an id as well."""
        client = self.rewound(dialect)
        client.say({"method": "SUBSCRIBE", "params": [A, C], "rewind": 2})
        answer, *publications = client.got
        told = answer["data"] if dialect is Dialect.HOUSE else answer
        assert told["rewound"] == {A: 2, C: 0}
        assert "recovered" not in told
        assert [each.get("data", each)["t"] for each in publications] == [2, 3]

    def test_streams_that_it_has_stay_as_they_are(self) -> None:
        """And are not counted."""
        client = self.rewound(Dialect.COMBINED)
        client.watch(A)
        client.subscribe(A, C, rewind=2)
        assert client.got == [reply(Dialect.COMBINED, None, id=1, rewound={C: 0})]
        client.subscribe(A, B, rewind=2, id=2)
        assert without_text(client.got[0]) == error(Dialect.COMBINED, 2, id=2)
        assert client.session.subscriptions == [A, C]
        client.subscribe(A, rewind=2, id=3)
        assert client.got == [reply(Dialect.COMBINED, None, id=3)]

    def test_it_costs_as_histories(self) -> None:
        """Two for two streams, besides the request."""
        client = self.rewound(Dialect.RAW)
        assert len(client.watch(A, C, rewind=300)) == 4
        admitted = 0
        while "error" not in client.ask({"method": "PING"}):
            admitted += 1
        assert admitted == 100 - 1 - 2 - 2 * 3


class TestHistory:
    def kept(self, dialect: Dialect, count: int = 150, **fields: Any) -> Client:
        client = Client(dialect, **fields)
        client.watch(A)
        client.source.publish(A, *(trade(number) for number in range(count)))
        client.got.clear()
        return client

    @dialects
    @pytest.mark.parametrize(("fields", "count"), [({}, 100), ({"limit": 1}, 1), ({"limit": 1000}, 150)])
    def test_the_newest_are_answered(self, dialect: Dialect, fields: dict[str, int], count: int) -> None:
        """Oldest first, with their offsets; 100 unless the request says how many."""
        client = self.kept(dialect)
        answer = client.ask({"method": "HISTORY", "params": ["a@trade"], "id": 7, **fields})
        result = (answer["data"] if dialect is Dialect.HOUSE else answer)["result"]
        assert answer == reply(dialect, result, id=7)
        assert [entry["data"] for entry in result] == [json.loads(trade(n)) for n in range(150 - count, 150)]
        assert len({entry["offset"] for entry in result}) == count

    def test_an_offset_of_it_is_one_to_resume_from(self) -> None:
        """As good as the one in an envelope."""
        client = self.kept(Dialect.COMBINED)
        answer = client.ask({"method": "HISTORY", "params": [A], "limit": 2})
        _, missed = client.watch("a@trade", since={"a@trade": answer["result"][0]["offset"]})
        assert missed["data"] == answer["result"][1]["data"]

    def test_pages_before_an_offset(self) -> None:
        """Put together they are all that is kept, each once; behind the last one there is nothing."""
        client = self.kept(Dialect.COMBINED)
        pages, further = [], {}
        while page := client.ask({"method": "HISTORY", "params": [A], "limit": 40, **further})["result"]:
            pages.append([entry["data"] for entry in page])
            further = {"before": page[0]["offset"]}
        assert [len(page) for page in pages] == [40, 40, 40, 30]
        assert [each for page in reversed(pages) for each in page] == [json.loads(trade(n)) for n in range(150)]

    def test_what_is_no_offset_to_be_before(self) -> None:
        """Error 2, by the client's own name of the stream."""
        client = self.kept(Dialect.COMBINED)
        answer = client.ask({"method": "HISTORY", "params": ["a@trade"], "before": "7-1", "id": 7})
        assert answer["error"]["code"] == 2
        assert answer["error"]["msg"].startswith("invalid request: before is no offset of a@trade that is known here")
        answer = client.ask({"method": "HISTORY", "params": ["a@trade"], "before": 7, "id": 8})
        assert answer == {"error": {"code": 2, "msg": "invalid request: before must be an offset, a string"}, "id": 8}

    def test_a_stream_of_which_nothing_is_kept(self) -> None:
        """An empty list; it is not subscribed by that."""
        client = Client()
        assert client.ask({"method": "HISTORY", "params": [C], "id": 7}) == {"result": [], "id": 7}
        assert not client.source.wanted

    def test_it_takes_half_of_the_queue_at_most(self) -> None:
        """The newest that fit."""
        client = self.kept(Dialect.RAW, limits=session_limits(request_burst=1000, client_queue=4096))
        answer = client.ask({"method": "HISTORY", "params": [A], "limit": 1000})
        assert 2048 - 150 < len(json.dumps(answer["result"], separators=(",", ":"))) <= 2048
        assert answer["result"][-1]["data"]["t"] == 149

    def test_it_needs_the_same_permission(self) -> None:
        """Error 5 names the stream as the client does."""
        client = Client(identity=Identity("alice", parse_patterns(["trade@*"], "alice"), 2e9))
        answer = client.ask({"method": "HISTORY", "params": ["a@depth"], "id": 7})
        assert answer == {"error": {"code": 5, "msg": "not permitted: the token does not cover a@depth"}, "id": 7}
        assert client.ask({"method": "HISTORY", "params": ["a@trade"], "id": 8}) == {"result": [], "id": 8}

    @pytest.mark.parametrize(("limit", "cost"), [(99, 1), (100, 2), (1000, 11)])
    def test_it_costs_by_what_it_asks_for(self, limit: int, cost: int) -> None:
        """One more for each hundred."""
        client = Client(limits=session_limits(request_rate=1, request_burst=20))
        client.ask({"method": "HISTORY", "params": [A], "limit": limit})
        left = sum(["result" in client.ask({"method": "PING"}) for _ in range(20)])
        assert left == 20 - cost

    @pytest.mark.parametrize("is_late", [False, True])
    def test_it_costs_by_what_it_finds(self, is_late: bool) -> None:
        """A few large ones are dear, too: what they cost more is owed."""
        archive = PendingArchive()
        limits = session_limits(request_rate=1, request_burst=20)
        client = Client(limits=limits, archive=archive if is_late else None)
        large = trade()[:-1] + b" " * 40_000 + b"}"
        if is_late:
            client.say({"method": "HISTORY", "params": [A], "limit": 3})
            archive.asked[0].callback([(f"{number}-0", large) for number in range(3)])
        else:
            client.watch(A)
            client.source.publish(A, large, large, large)
            client.say({"method": "HISTORY", "params": [A], "limit": 3})
        assert client.got
        left = sum(["result" in client.ask({"method": "PING"}) for _ in range(19)])
        assert left == 20 - 1 - 7 - (not is_late)

    @dialects
    def test_requests_wait_behind_it(self, dialect: Dialect) -> None:
        """They are answered after it, in order."""
        archive = PendingArchive()
        client = Client(dialect, archive=archive)
        client.say({"method": "HISTORY", "params": [A], "id": 1})
        client.say({"method": "PING", "id": 2})
        client.say({"method": "HISTORY", "params": [C], "id": 3})
        client.say({"method": "PING", "id": 4})
        assert not client.got
        archive.asked[0].callback([("1-1", trade())])
        result = [{"offset": "1-1", "data": json.loads(trade())}]
        assert client.got == [reply(dialect, result, id=1), reply(dialect, "PONG", id=2)]
        archive.asked[1].callback(None)
        first, second = client.got
        assert without_text(first) == error(dialect, 7, id=3)
        assert second == reply(dialect, "PONG", id=4)

    def test_any_number_of_them_may_wait(self) -> None:
        """They came with the same bytes; however many, they are taken up one by one."""
        client = Client()
        client.subscribe(A)
        for number in range(1000):
            client.say({"method": "HISTORY", "params": [A], "limit": 1, "id": number})
        client.source.confirm()
        assert [message["id"] for message in client.got] == [1, *range(1000)]
        assert client.ask({"method": "PING"}) == {"result": "PONG"}

    def test_a_client_that_is_gone_gets_no_answer(self) -> None:
        """Nor do the requests behind it."""
        archive = PendingArchive()
        client = Client(archive=archive)
        client.say({"method": "HISTORY", "params": [A]})
        client.subscribe(A)
        client.session.end()
        archive.asked[0].callback([])
        assert not client.got
        client.assert_gone()

    @pytest.mark.parametrize("is_late", [False, True])
    def test_a_fault_of_ours_is_the_end_of_this_client(self, is_late: bool, logged: LogCapture) -> None:
        """Nobody waits for ever for an answer that does not come."""
        archive = PendingArchive()
        client = Client(archive=archive if is_late else None)
        client.watch(A)
        if is_late:
            client.say({"method": "HISTORY", "params": [A]})
            archive.asked[0].errback(ArithmeticError())
        else:
            client.outbox.send = broken
            client.say({"method": "HISTORY", "params": [A]})
        assert client.closed_with is INTERNAL_ERROR
        assert len(logged.flush_failures(ArithmeticError)) == 1


def broken(data: bytes) -> int:
    raise ArithmeticError


class TestOrder:
    def test_requests_wait_behind_a_subscribe_that_waits(self) -> None:
        """All are answered in order, once the source has confirmed."""
        client = Client()
        client.subscribe(A)
        client.say({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        client.say(b"nonsense")
        client.subscribe(B, id=3)
        client.say({"method": "LIST_SUBSCRIPTIONS", "id": 4})
        assert not client.got
        client.source.confirm(A)
        first, second, third = client.got
        assert (first, second) == ({"result": None, "id": 1}, {"result": [A], "id": 2})
        assert without_text(third) == error(Dialect.RAW, 3)
        client.source.confirm(B)
        assert client.got == [{"result": None, "id": 3}, {"result": [A, B], "id": 4}]

    def test_an_unsubscribe_behind_it_is_carried_out_after_it(self) -> None:
        """Nothing of the stream remains."""
        client = Client()
        client.subscribe(A)
        client.say({"method": "UNSUBSCRIBE", "params": [A], "id": 2})
        client.source.confirm()
        assert [message["id"] for message in client.got] == [1, 2]
        client.assert_gone()

    def test_a_stream_that_flows_already_is_confirmed_at_once(self) -> None:
        """The second SUBSCRIBE waits for nobody."""
        client = Client()
        client.subscribe(A)
        client.source.confirm()
        client.subscribe("a@trade", id=2)
        assert [message["id"] for message in client.got] == [1, 2]

    def test_what_is_not_confirmed_in_time_is_answered_with_a_gap(self) -> None:
        """After 5 s; the requests behind it go on."""
        client = Client()
        client.say({"method": "SET_PROPERTY", "params": ["events", True]})
        client.subscribe(A)
        client.say({"method": "PING", "id": 2})
        client.clock.advance(CONFIRM_SECONDS)
        _, first, gap, second = client.got
        assert (first["id"], gap["e"], gap["streams"], gap["to"], second["id"]) == (1, "gap", [A], None, 2)

    @pytest.mark.parametrize("dialect", Dialect)
    def test_gaps_are_for_those_who_hear_events(self, dialect: Dialect) -> None:
        """By the path, and by the property from the moment on at which it is set; a farewell is none of them."""
        client = Client(dialect)
        client.subscribe(A)
        client.source.confirm()
        assert len(client.got) == 1
        hears = dialect is Dialect.HOUSE
        for number in range(3):
            assert client.session.hears_events is hears
            client.source.lose(number)
            assert len(client.got) == hears
            client.source.confirm(A)
            client.hub.flush()
            assert len(client.got) == hears
            hears = not hears
            client.say({"method": "SET_PROPERTY", "params": ["events", hears], "id": 2})
            assert len(client.got) == 1
        assert b"serverShutdown" in client.session.event(ServerShutdown(1, 2))

    def test_who_begins_to_hear_events_is_told_what_lasts(self) -> None:
        """Behind the reply, once: the gaps that are open, and what there is to say of the token."""
        client = Client(Dialect.COMBINED)
        client.subscribe(A, C)
        client.source.confirm()
        client.source.lose(5)
        assert len(client.got) == 1
        asks = {"method": "SET_PROPERTY", "params": ["events", True], "id": 2}
        client.say(asks)
        answer, gap = client.got
        assert answer == {"result": None, "id": 2}
        assert (gap["stream"], gap["data"]["streams"], gap["data"]["to"]) == ("!gap", [A, C], None)
        assert client.renewed == [ANONYMOUS]
        client.say(asks)
        assert client.got == [{"result": None, "id": 2}]
        assert len(client.renewed) == 1

    def test_a_client_that_goes_on_asking_is_not_read_from(self) -> None:
        """From the 16th waiting request on, until fewer wait again; none is lost."""
        client = Client()
        client.subscribe(A, id=0)
        for number in range(1, QUEUED):
            client.say({"method": "PING", "id": number})
        assert client.reading
        client.subscribe(B, id=QUEUED)
        assert not client.reading
        for number in range(QUEUED + 1, 2 * QUEUED + 1):  # these came with the same bytes
            client.say({"method": "PING", "id": number})
        client.source.confirm(A)
        assert not client.reading  # there are still as many behind the second one
        client.source.confirm(B)
        assert client.reading
        assert [message["id"] for message in client.got] == list(range(2 * QUEUED + 1))

    @pytest.mark.parametrize("waiting", [0, 1, QUEUED - 1, QUEUED, QUEUED + 1])
    def test_a_client_that_ends_unread_is_read_from_again(self, waiting: int) -> None:
        """Its answer to the close must be heard."""
        client = Client()
        client.subscribe(A)
        for _ in range(waiting):
            client.say({"method": "PING"})
        client.session.end()
        assert client.reading
        client.source.confirm(*client.source.wanted)
        assert not client.got
        client.assert_gone()

    @property_test
    @given(st.data())
    def test_any_conversation_is_answered_in_order(self, data: st.DataObject) -> None:
        """Each request gets one reply, in order, whenever the source confirms; the list of subscriptions is right."""
        client = Client(data.draw(st.sampled_from([Dialect.COMBINED, Dialect.RAW])), linger=5.0)
        model: list[str] = []
        expected: list[Any] = []
        names = st.lists(st.sampled_from((A, B, C, "a@trade", "a@depth", "a@depth@1000ms")), max_size=3)
        steps = st.one_of(
            st.tuples(st.just("SUBSCRIBE"), names),
            st.tuples(st.just("UNSUBSCRIBE"), names),
            st.tuples(st.just("LIST_SUBSCRIPTIONS"), st.none()),
            st.tuples(st.just("HISTORY"), st.sampled_from(([A], [B]))),
            st.tuples(
                st.just("SET_PROPERTY"),
                st.tuples(st.sampled_from(("combined", "offsets", "snapshot")), st.booleans()).map(list),
            ),
            st.tuples(st.just("publish"), st.none()),
            st.tuples(st.just("lose"), st.none()),
            st.tuples(st.just("confirm"), st.none()),
            st.tuples(st.just("advance"), st.none()),
        )
        for number, (step, params) in enumerate(data.draw(st.lists(steps, max_size=20))):
            if step == "confirm":
                client.source.confirm()
                continue
            if step == "publish":
                client.source.publish(A, trade(number))
                client.source.publish(B, depth(number, number, snapshot=number % 2 == 0))
                continue
            if step == "lose":
                client.source.lose()
                continue
            if step == "advance":
                client.clock.advance(3)
                continue
            since = {"since": {params[0]: "x"}} if step == "SUBSCRIBE" and params and params[0] not in model else {}
            client.say({"method": step, "params": params, "id": number, **since})
            result: object = None
            if step == "SUBSCRIBE":
                model += [name for name in dict.fromkeys(params) if name not in model]
            elif step == "UNSUBSCRIBE":
                model = [name for name in model if name not in params]
            else:
                result = list(model) if step == "LIST_SUBSCRIPTIONS" else None
            recovered = {"recovered": {params[0]: False}} if since else {}
            expected.append({"result": result, "id": number, **recovered})
        while client.clock.getDelayedCalls():
            client.source.confirm()
            client.clock.advance(10)
        answers = [message for message in client.got if "result" in message]
        histories = [message for message in answers if message["result"] and "data" in message["result"][0]]
        for message in histories:
            message["result"] = None
        assert [{**message, "result": message["result"] or None} for message in answers] == [
            {**message, "result": message["result"] or None} for message in expected
        ]
        assert client.session.subscriptions == model
        client.session.end()
        client.clock.advance(10)
        client.assert_gone()

    @property_test
    @given(st.sampled_from(list(Dialect)), st.lists(st.binary(max_size=40) | json_texts.map(str.encode), max_size=8))
    def test_whatever_is_said_is_answered(self, dialect: Dialect, messages: list[bytes]) -> None:
        """None of it is a request, and each gets an error that has the shape of the dialect."""
        client = Client(dialect)
        for message in messages:
            assert without_text(client.ask(message)) in (error(dialect, 2), error(dialect, 3))


class TestBeginning:
    def test_the_streams_of_the_path_are_subscribed_without_a_reply(self) -> None:
        """Requests wait behind them all the same."""
        client = Client(Dialect.COMBINED)
        client.session.begin([A, B])
        client.say({"method": "LIST_SUBSCRIPTIONS", "id": 1})
        assert not client.got
        client.source.confirm()
        assert client.got == [{"result": [A, B], "id": 1}]

    def test_no_streams_in_the_path(self) -> None:
        """Nothing is subscribed, nothing is said."""
        client = Client()
        client.session.begin([])
        assert not client.got
        assert not client.source.calls

    def test_too_many_streams_in_the_path_are_an_error(self) -> None:
        """Which the client hears of."""
        client = Client(limits=session_limits(max_streams=1))
        client.session.begin([A, B])
        (answer,) = client.got
        assert without_text(answer) == error(Dialect.RAW, 4)


class TestRate:
    @dialects
    def test_a_burst_and_then_a_steady_rate(self, dialect: Dialect) -> None:
        """What is too much gets error 7 with the id of the request, even one that is wrong."""
        client = Client(dialect, session_limits(request_rate=2, request_burst=3))
        for number in range(3):
            assert client.ask({"method": "PING", "id": number}) == reply(dialect, "PONG", id=number)
        assert without_text(client.ask({"method": "PING", "id": 3})) == error(dialect, 7, id=3)
        assert without_text(client.ask(b'{"id":4}')) == error(dialect, 7, id=4)
        assert without_text(client.ask(b"nonsense")) == error(dialect, 7)
        client.clock.advance(0.5)
        assert client.ask({"method": "PING", "id": 5}) == reply(dialect, "PONG", id=5)
        assert without_text(client.ask({"method": "PING", "id": 6})) == error(dialect, 7, id=6)

    def test_twenty_refusals_in_a_row_end_the_connection(self) -> None:
        """Nineteen do not, and one request that is accepted begins a new row."""
        client = Client(limits=session_limits(request_rate=1, request_burst=1))
        client.ask({"method": "PING"})
        for _ in range(19):
            client.ask({"method": "PING"})
        client.clock.advance(1)
        assert client.ask({"method": "PING"}) == {"result": "PONG"}
        for _ in range(19):
            client.ask({"method": "PING"})
        assert client.closed_with is None
        client.say({"method": "PING"})
        assert client.closed_with is TOO_MANY_REQUESTS
        assert not client.got

    def test_a_request_counts_by_the_streams_that_it_names(self) -> None:
        """Once for each twenty; what there is no room for is owed. It does not matter how the streams are written."""
        streams = [f"trade@M{number}" for number in range(60)]
        text = json.dumps({"method": "UNSUBSCRIBE", "params": streams}).replace("@", "\\u0040").encode()
        client = Client(limits=session_limits(request_rate=1, request_burst=5))
        assert client.ask(text) == {"result": None}
        assert client.ask({"method": "PING"}) == {"result": "PONG"}
        assert without_text(client.ask({"method": "PING"})) == error(Dialect.RAW, 7)
        client.clock.advance(1)
        assert client.ask(text) == {"result": None}
        client.clock.advance(3)
        assert without_text(client.ask({"method": "PING"})) == error(Dialect.RAW, 7)
        client.clock.advance(1)
        assert client.ask({"method": "PING"}) == {"result": "PONG"}

    def test_the_streams_of_the_path_count_too(self) -> None:
        """A path is as good as a request."""
        client = Client(limits=session_limits(request_rate=1, request_burst=2))
        client.session.begin([f"trade@M{number}" for number in range(40)])
        client.source.confirm(*client.source.wanted)
        assert without_text(client.ask({"method": "PING"})) == error(Dialect.RAW, 7)

    @pytest.mark.parametrize(
        ("asks", "cost"),
        [
            ({"method": "SET_PROPERTY", "params": ["combined", True]}, 4),
            ({"method": "SET_PROPERTY", "params": ["combined", False]}, 1),
            ({"method": "SET_PROPERTY", "params": ["snapshot", True]}, 1),
            ({"method": "AUTH", "params": ["good"]}, 8),
            ({"method": "AUTH", "params": ["tried"]}, 11),
            ({"method": "AUTH", "params": ["bad"]}, 5),
            ({"method": "LIST_SUBSCRIPTIONS"}, 1),
        ],
        ids=repr,
    )
    def test_what_is_done_for_all_streams_of_a_client_counts_by_them(self, asks: object, cost: int) -> None:
        """Only where something is done; here there are sixty, and patterns that are tried on each."""
        tried = parse_patterns([f"*@M*{number}*" for number in range(50)], "alice")
        tokens = {"good": ALICE, "tried": Identity("alice", tried, 2e9)}
        client = Client(limits=session_limits(request_rate=0.001, request_burst=60), tokens=tokens)
        client.watch(*[f"trade@M{number}" for number in range(50)])
        client.watch(*[f"trade@M{number}" for number in range(50, 60)])
        client.say(asks)
        turns(client)
        assert pings(client) == 60 - 3 - 1 - cost

    def test_patterns_that_are_tried_count_when_streams_are_asked_for(self) -> None:
        """Once for each thousand tries."""
        tried = parse_patterns([f"*@M*{number}*" for number in range(100)], "alice")
        limits = session_limits(request_rate=0.001, request_burst=60)
        client = Client(limits=limits, identity=Identity("alice", tried, 2e9))
        client.subscribe(*[f"trade@M{number}" for number in range(40)])
        turns(client)
        client.source.confirm()
        assert len(client.session.subscriptions) == 40
        assert pings(client) == 60 - 3 - 4

    def test_what_was_put_together_for_a_client_counts(self) -> None:
        """Once for each 16 KiB."""
        limits = session_limits(request_rate=0.001, request_burst=60)
        for late in (False, True):
            client = Client(limits=limits)
            client.set("snapshot")
            client.watch("depth@A")
            client.hub.publish("depth@A", book(2000))  # of some 70 KB
            client.hub.flush()
            client.watch("a@depth", *(["trade@B"] if late else []))
            turns(client)
            assert len(client.session.subscriptions) == 2 + late
            assert pings(client) == 60 - 3 - 4

    @pytest.mark.parametrize("method", ["SUBSCRIBE", "UNSUBSCRIBE"])
    def test_more_streams_than_there_can_be_are_not_read(self, method: str) -> None:
        """Not one of them, or a single request would take as long as thousands."""
        client = Client(limits=session_limits(max_streams=3, request_burst=100))
        answer = client.ask({"method": method, "params": ["no stream"] * 4, "id": 1})
        assert without_text(answer) == error(Dialect.RAW, 4, id=1)
        assert without_text(client.ask({"method": method, "params": ["no stream"] * 3, "id": 1})) == error(
            Dialect.RAW, 2, id=1
        )

    def test_a_refusal_keeps_its_place(self) -> None:
        """It is not answered before the request that it came after."""
        client = Client(limits=session_limits(request_rate=1, request_burst=1))
        client.subscribe(A)
        client.say({"method": "PING", "id": 2})
        assert not client.got
        client.source.confirm()
        first, second = client.got
        assert first == {"result": None, "id": 1}
        assert without_text(second) == error(Dialect.RAW, 7, id=2)


class TestLongWork:
    """What takes long is done in later turns, and everything is as if it were not."""

    def test_many_streams_get_their_shape_in_a_turn_of_their_own(self) -> None:
        """Until the reply publications look as before it; what is asked behind it waits."""
        client = Client()
        client.subscribe(*[f"trade@M{number}" for number in range(200)])
        turns(client)
        client.source.confirm()
        client.say({"method": "SET_PROPERTY", "params": ["combined", True], "id": 1})
        client.say({"method": "GET_PROPERTY", "params": ["combined"], "id": 2})
        client.got.clear()
        client.source.publish("trade@M7", trade(1))
        (before,) = client.got
        assert before["t"] == 1
        turn_of(client.clock)
        client.source.publish("trade@M7", trade(2))
        assert client.got == [
            {"result": None, "id": 1},
            {"result": True, "id": 2},
            {"stream": "trade@M7", "data": {**before, "t": 2}},
        ]
        client.session.end()
        turns(client)
        client.assert_gone()

    def test_several_clients_share_a_turn(self) -> None:
        """Whatever each of them asks."""
        client = Client()
        others = [Client(beside=client) for _ in range(3)]
        for each in (client, *others):
            each.subscribe(*[f"trade@M{number}" for number in range(600)])
        turns(client)
        client.source.confirm()
        for each in (client, *others):
            each.say({"method": "SET_PROPERTY", "params": ["combined", True], "id": 1})
            each.got.clear()
        answered = []
        while client.clock.getDelayedCalls():
            turn_of(client.clock)
            answered.append([bool(each.got) for each in (client, *others)].count(True))
        assert answered[:2] == [2, 2]

    def test_a_fault_in_it_is_that_clients_end(self, logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is logged, and everybody else goes on."""
        client = Client()
        client.subscribe(*[f"trade@M{number}" for number in range(200)])
        turns(client)
        client.source.confirm()
        monkeypatch.setattr(Hub, "reshape", lambda *_: 1 / 0)
        client.say({"method": "SET_PROPERTY", "params": ["combined", True], "id": 1})
        turns(client)
        assert client.closed_with is INTERNAL_ERROR
        assert len(logged.flush_failures(ZeroDivisionError)) == 1
        turns(client)
        client.assert_gone()

    @pytest.mark.parametrize("turns_before", range(4))
    def test_who_goes_in_the_midst_of_it_leaves_nothing(self, turns_before: int) -> None:
        """Not the requests behind it either."""
        tried = parse_patterns([f"*@*{number}*" for number in range(100)], "alice")
        client = Client(tokens={"tried": Identity("alice", tried, 2e9)})
        client.subscribe(*[f"trade@M{number}" for number in range(100)])
        client.source.confirm()
        client.say({"method": "AUTH", "params": ["tried"], "id": 2})
        for _ in range(2 * QUEUED):
            client.say({"method": "SUBSCRIBE", "params": ["trade@B"]})
        for _ in range(turns_before):
            turn_of(client.clock)
        client.session.end()
        assert client.reading
        turns(client)
        client.assert_gone()

    @property_test
    @given(
        st.lists(
            st.one_of(
                st.tuples(
                    st.sampled_from(("SUBSCRIBE", "UNSUBSCRIBE")), st.lists(st.sampled_from((A, B, C)), max_size=3)
                ),
                st.tuples(
                    st.just("SET_PROPERTY"),
                    st.tuples(st.sampled_from(("combined", "offsets", "snapshot")), st.booleans()),
                ),
                st.tuples(st.just("AUTH"), st.sampled_from((["wide"], ["narrow"], ["bad"]))),
                st.tuples(st.sampled_from(("PING", "LIST_SUBSCRIPTIONS")), st.none()),
                st.tuples(st.just("publish"), st.sampled_from((A, B, C))),
                st.tuples(st.just("turn"), st.none()),
            ),
            max_size=20,
        )
    )
    def test_answers_are_the_same_and_in_order_whatever_is_put_off(self, steps: list[tuple[str, Any]]) -> None:
        """All that can be is put off. A publication comes where it is subscribed to by the answers so far, in the shape
        that they say."""
        narrow = Identity("alice", parse_patterns(["trade@*A*"], "alice"), 2e9)
        wide = Identity("alice", parse_patterns(["*@*A*", "*@*B*"], "alice"), 2e9)
        answers = []
        for at_once in (0, 10**9):
            with patch("marketfeed.hub.portions.AT_ONCE", at_once):
                client = Client(tokens={"wide": wide, "narrow": narrow})
                client.source.at_once = True
                reader = Reader(client)
                for number, (what, argument) in enumerate([*steps, *[("turn", None)] * 100]):
                    if what == "turn":
                        turn_of(client.clock)
                    elif what == "publish":
                        reader.publish(argument, number)
                    else:
                        reader.ask(number, what, argument)
                    reader.read()
                assert not reader.asked
                client.session.end()
                turns(client)
                client.assert_gone()
                answers.append(reader.answers)
        assert answers[0] == answers[1]


class TestEnd:
    def test_all_subscriptions_end(self) -> None:
        """Those that are confirmed, and the one that waits."""
        client = Client()
        client.subscribe(A, "a@trade")
        client.source.confirm()
        client.subscribe(B)
        client.say({"method": "PING"})
        client.session.end()
        client.assert_gone()
        client.session.end()

    @pytest.mark.parametrize(
        "request_text",
        [
            {"method": "SUBSCRIBE", "params": ["a@trade"], "id": 2},
            {"method": "UNSUBSCRIBE", "params": [A], "id": 2},
            {"method": "UNSUBSCRIBE", "params": [C], "id": 2},
            {"method": "SET_PROPERTY", "params": ["combined", True], "id": 2},
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("end", ["overflow", "socket"])
    def test_a_client_that_ends_while_it_asks_leaves_nothing(self, request_text: object, end: str) -> None:
        """What is pending goes out before a change takes effect, and may be too much, or find the socket gone."""
        client = Client()
        client.subscribe(A, C)
        client.source.confirm()
        client.hub.publish(A, trade())
        if end == "overflow":
            client.outbox.stall()
            client.outbox.limit = 0
        else:
            client.outbox.takes.append(OSError(errno.EPIPE, "gone"))
        client.say(request_text)
        if end == "socket":
            client.session.end()  # as soon as the transport has noticed
        client.assert_gone()

    def test_a_client_that_ends_with_requests_waiting_leaves_nothing(self) -> None:
        """An answer that is too much ends the session; the SUBSCRIBE behind it is not carried out."""
        client = Client()
        client.subscribe(A)
        client.say({"method": "PING"})
        client.subscribe(B)
        for _ in range(QUEUED):
            client.say({"method": "PING"})
        client.outbox.stall()
        client.outbox.limit = len(text_frame(b'{"result":null,"id":1}'))
        client.source.confirm(A)
        assert client.outbox.overflows == 1
        assert client.reading
        client.assert_gone()


def test_what_a_client_asks_is_logged_for_debugging(logged: LogCapture) -> None:
    """Which client, what it asked, cut short, and what was wrong with it."""
    client = Client()
    client.say({"method": "PING", "id": 1})
    client.say({"method": "SUBSCRIBE", "params": "x" * 1000})
    assert {event["log_level"].name for event in logged.events} == {"debug"}
    assert [event["log_format"].format_map(event) for event in logged.events] == [
        "client 7 asks PING",
        "client 7 asks SUBSCRIBE " + "x" * 200,
        'client 7 is refused: invalid request: params must be a list; expected streams, as ["trade@TATA_INR"]',
    ]


def test_nothing_is_composed_that_nobody_reads(logged: LogCapture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the log is at debug."""
    monkeypatch.setattr(Log, "debugging", False)
    Client().say({"method": "PING"})
    assert not logged.events


@pytest.mark.parametrize(("count", "more"), [(1, ""), (5, ""), (6, ", …")])
def test_a_change_is_logged_with_a_few_streams(count: int, more: str, logged: LogCapture) -> None:
    """And how many there are."""
    streams = [f"trade@{number}" for number in range(count)]
    client = Client()
    client.watch(*streams)
    client.ask({"method": "UNSUBSCRIBE", "params": [*streams, "trade@X"]})
    few = ", ".join(streams[:5]) + more
    lines = [event["log_format"].format_map(event) for event in logged.events if event["log_level"].name == "info"]
    assert lines == [f"client 7 {verb} {count} streams: {few}" for verb in ("subscribed to", "unsubscribed from")]


ALICE = Identity("alice", None, 2e9)


class TestTokens:
    """What a client may have is what its token says (docs/protocol.md#tokens)."""

    def test_what_is_not_permitted_is_refused(self) -> None:
        """As a whole, with the first stream that is not; nothing of the rest is subscribed."""
        client = Client(identity=Identity("alice", parse_patterns(["depth@*"], "alice"), 2e9))
        client.say({"method": "SUBSCRIBE", "params": ["depth@A", "trade@A"], "id": 1})
        assert client.got == [{"error": {"code": 5, "msg": "not permitted: the token does not cover trade@A"}, "id": 1}]
        assert client.session.subscriptions == []
        client.say({"method": "SUBSCRIBE", "params": ["depth@A"], "id": 2})
        client.source.confirm()
        assert client.got == [{"result": None, "id": 2}]

    def test_a_private_stream_is_its_users(self) -> None:
        """Nobody without a token has one, and nobody else's."""
        client = Client(tokens={"good": ALICE})
        client.say({"method": "SUBSCRIBE", "params": ["orders@alice"], "id": 1})
        assert client.got == [{"error": {"code": 5, "msg": "not permitted: orders@alice needs a token"}, "id": 1}]
        client.say({"method": "AUTH", "params": ["good"], "id": 2})
        assert client.got == [{"result": None, "id": 2}]
        assert client.renewed == [ALICE]
        client.say({"method": "SUBSCRIBE", "params": ["orders@bob"], "id": 3})
        (answer,) = client.got
        assert answer["error"]["code"] == 5
        client.say({"method": "SUBSCRIBE", "params": ["orders@alice"], "id": 4})
        client.source.confirm()
        assert client.got == [{"result": None, "id": 4}]

    def test_a_token_that_is_no_good_changes_nothing(self) -> None:
        """Nor does one of another user; the connection stays."""
        client = Client(identity=ALICE, tokens={"other": Identity("bob", None, 2e9)})
        client.say({"method": "AUTH", "params": ["bad"], "id": 1})
        client.say({"method": "AUTH", "params": ["other"], "id": 2})
        assert client.got == [
            {"error": {"code": 6, "msg": "authentication failed: the token has expired"}, "id": 1},
            {"error": {"code": 6, "msg": "authentication failed: the token is another user's"}, "id": 2},
        ]
        assert client.renewed == []
        assert client.closed_with is None

    @pytest.mark.parametrize("dialect", Dialect)
    def test_what_a_new_token_does_not_cover_ends(self, dialect: Dialect) -> None:
        """With error 5 that names those streams, behind the reply; what it covers goes on."""
        narrow = Identity("alice", parse_patterns(["trade@*"], "alice"), 2e9)
        client = Client(dialect, identity=ALICE, tokens={"narrow": narrow})
        client.say({"method": "SUBSCRIBE", "params": ["trade@A", "depth@A", "ticker@A"], "id": 1})
        client.source.confirm()
        assert len(client.got) == 1
        client.say({"method": "AUTH", "params": ["narrow"], "id": 2})
        reply, error = client.got
        text = "not permitted: the token does not cover depth@A, ticker@A"
        if dialect is Dialect.HOUSE:
            assert reply["data"] == {"e": "reply", "id": 2, "result": None}
            assert error == {"stream": "!error", "data": {"e": "error", "code": 5, "msg": text}}
        else:
            assert reply == {"result": None, "id": 2}
            assert error == {"error": {"code": 5, "msg": text}}
        assert client.session.subscriptions == ["trade@A"]
        assert client.hub.streams == {"trade@A"}

    @pytest.mark.parametrize(
        "request_",
        [
            {"method": "AUTH", "params": ["SECRET"]},
            {"method": "AUTH", "params": ["SECRET", 5]},
            {"method": "AUTH", "params": "SECRET"},
            {"method": "auth", "params": ["SECRET"]},
            {"method": "LOGIN", "params": {"token": "SECRET"}},
            {"method": "SECRET"},
            {"method": ["SECRET"]},
            {"method": "PING", "token": "SECRET"},
            {"method": "SUBSCRIBE", "params": ["trade@A"], "token": "SECRET"},
            {"method": "GET_PROPERTY", "params": ["combined"], "id": "SECRET"},
        ],
        ids=str,
    )
    def test_no_token_is_logged(self, request_: Any, logged: LogCapture) -> None:
        """Wherever a client puts it; nor when the request is broken."""
        client = Client(tokens={"SECRET": ALICE})
        client.say(request_)
        client.session.receive(json.dumps(request_).encode()[:-1])
        client.source.confirm()
        assert client.got
        assert logged.events
        assert "SECRET" not in repr(logged.events)


@pytest.mark.parametrize(
    ("dialect", "comes"), [(Dialect.HOUSE, [1, 2, 3]), (Dialect.COMBINED, [1]), (Dialect.RAW, [1])]
)
def test_the_rate_of_a_name_without_one(dialect: Dialect, comes: list[int]) -> None:
    """The operator may give it one, but not on `/`; what the client says counts more."""
    kinds = StreamKinds(
        [msgspec.structs.replace(kind, path_rate=1000 if kind.name == "depth" else 0) for kind in KINDS]
    )
    client = Client(dialect, kinds=kinds)
    client.watch("depth@A")
    for number in (1, 2, 3):
        client.source.publish("depth@A", b'{"e":"depth","a":[],"b":[],"U":%d,"u":%d}' % (number, number))
    assert [message.get("data", message)["u"] for message in client.got] == comes
    client.ask({"method": "UNSUBSCRIBE", "params": ["depth@A"], "id": 2})
    client.clock.advance(2)
    client.watch("depth@A@100ms")
    for number in (4, 5, 6):
        client.source.publish("depth@A", b'{"e":"depth","a":[],"b":[],"U":%d,"u":%d}' % (number, number))
    client.clock.advance(0.1)
    assert [message.get("data", message)["u"] for message in client.got] == [4, 6]
    client.session.end()


@pytest.mark.parametrize(
    ("name", "elsewhere"),
    [
        ("kline_5m@A", "kline_5m@A has no history here; past candles are at GET /api/v3/klines?symbol=A&interval=5m"),
        ("miniTicker@A", "miniTicker@A has no history here; the last 24 hours are at GET /api/v3/ticker/24hr"),
    ],
)
def test_who_asks_for_past_candles_hears_where_they_are(name: str, elsewhere: str) -> None:
    client = Client(Dialect.COMBINED)
    fault = client.ask({"method": "HISTORY", "params": [name], "id": 1})["error"]
    assert (fault["code"], fault["msg"]) == (2, f"invalid request: params[0]: {elsewhere}")
    before = {"method": "HISTORY", "params": [name], "before": "0-1", "id": 2}
    answer = client.ask(before)
    assert "has no history here" not in str(answer)
    assert client.ask({"method": "HISTORY", "params": ["trade@A"], "id": 3}) == {"result": [], "id": 3}
    client.session.end()


@pytest.mark.parametrize("name", ["bookTicker@A", "a@depth20", "depth5@A@1000ms"])
def test_what_is_made_of_a_book_has_no_history(name: str) -> None:
    """The error says of what it is made."""
    client = Client(Dialect.COMBINED)
    fault = client.ask({"method": "HISTORY", "params": [name], "id": 1})["error"]
    assert (fault["code"], fault["msg"].endswith("has no history; it is made of depth@A, which has")) == (2, True)
    client.session.end()
