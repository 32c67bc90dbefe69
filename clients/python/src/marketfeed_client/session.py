"""The conversation with the daemon, without a socket, a clock or a timer: what is wanted and what comes in → what is
sent and what is told. docs/protocol.md is the contract.

1. What is wanted is kept, requests are not: each connection begins by asking for all that is wanted then.
2. The offset of a stream moves on before its readers are called, so that nothing comes twice, whatever they do.
3. What comes of a stream before its SUBSCRIBE is answered belongs to an earlier question, and is left aside.
4. A stream is subscribed anew only when its UNSUBSCRIBE has been answered.
5. A stream that was not recovered is lost with the next message that comes of it, and not before: while a gap is open
   its source may be able to say more later.
6. A SUBSCRIBE takes effect whole or not at all: one that is refused is halved until it is known which stream it was.
7. What is asked patiently is asked again when the server has been asked too much, but not for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import msgspec

from marketfeed_client.errors import FeedError
from marketfeed_client.events import Event, Expiring, Gap, Quality, Recovered, Rewound

__all__ = ["Answer", "Envelope", "Port", "Reader", "Session", "Subscription"]

_MOST_STREAMS = 200
_MOST_CHARACTERS = 15_000
"""Of a daemon's 65,536 bytes for a message, whatever the characters are."""
_INVALID = 2
_TOO_MANY_SUBSCRIPTIONS = 4
_NOT_PERMITTED = 5
_TOO_MANY_REQUESTS = 7
_MOST_REFUSALS = 6
"""After so many in a row, whoever asks patiently hears of it."""

T = TypeVar("T")
Answer = Callable[[Any, FeedError | None], None]
"""Who asked: called with the result, or with None and the error."""
_Done = Callable[[dict[str, Any]], None]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A message as it comes, its data not read yet."""

    stream: str
    data: msgspec.Raw
    offset: str | None = None


class Reader(Protocol):
    """Who gets the publications of a stream."""

    def take(self, envelope: Envelope, past: bool) -> None:
        """A publication; `past`: from before the subscription."""


class Port(Protocol):
    """What the session asks of whoever has the connection."""

    def now(self) -> float:
        """In ms since 1970."""

    def ticks(self) -> float:
        """In ms of a clock that is never set."""

    def send(self, text: bytes) -> None: ...

    def emit(self, event: Event) -> None: ...

    def failed_request(self, error: FeedError) -> None:
        """Something is wrong that leaves the connection open."""

    def ready(self) -> None:
        """The server has answered for the first time."""

    def later(self, refusals: int) -> None:
        """Call `resume` after a pause: the server has been asked too much."""

    def fail(self, error: FeedError) -> None:
        """End this connection."""

    def shutdown(self, hint: float) -> None:
        """The server goes, and asks to come back after so many ms."""

    def expiring(self) -> None:
        """The token will not be good for long."""


class Status(IntEnum):
    """Where a subscription stands."""

    NEW = 0
    ASKED = 1
    LIVE = 2
    REFUSED = 3


_LIVE = Status.LIVE


class Subscription:
    """What is wanted of one stream, and where it stands."""

    __slots__ = (
        "asked",
        "count",
        "from_",
        "is_lost",
        "is_replaying",
        "offset",
        "past",
        "readers",
        "refusal",
        "rewind",
        "status",
        "stream",
        "to",
    )

    def __init__(self, stream: str, rewind: int) -> None:
        self.stream = stream
        self.rewind = rewind
        self.readers: tuple[Reader, ...] = ()
        self.offset: str | None = None  # of the last message that was delivered
        self.status = Status.NEW
        self.asked = 0  # the id of its SUBSCRIBE
        self.refusal = 0  # the code of the last refusal
        self.is_lost = False
        self.is_replaying = False
        self.count = 0  # recovered so far
        self.past = 0  # rewound ones still to come
        self.from_: float | None = None  # since when something may be missing
        self.to: float | None = None


class Session:
    """One client's conversation, over any number of connections."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._wanted: dict[str, Subscription] = {}
        self._fresh: dict[Subscription, None] = {}  # to be asked for
        self._leave: dict[str, None] = {}  # to be unsubscribed
        self._leaving: set[str] = set()  # their UNSUBSCRIBE has not been answered yet
        self._requests: dict[int, tuple[float, _Done]] = {}
        self._last_id = 0
        self._is_open = False
        self.is_ready = False
        """Whether the server has answered on the present connection."""
        self._is_paused = False
        self._refusals = 0
        self._again: list[tuple[Callable[[], None], _Done]] = []  # to be asked anew, and who waits for that
        self._decode = msgspec.json.Decoder(Envelope).decode
        self._read: Callable[[bytes | msgspec.Raw], Any] = msgspec.json.Decoder().decode

    @property
    def waiting_since(self) -> float | None:
        """When the oldest request without an answer was sent, by `ticks`."""
        return next((at for at, _ in self._requests.values()), None)

    @property
    def streams(self) -> list[str]:
        """What is wanted."""
        return list(self._wanted)

    def wanted(self, stream: str) -> Subscription | None:
        """What is known of a stream that is wanted."""
        return self._wanted.get(stream)

    def want(self, stream: str, rewind: int) -> Subscription:
        """Want a stream, beginning with `rewind` of its last publications; the subscription there is, if it is wanted
        already. Whoever calls sees to it that `flush` is called soon.
        """
        subscription = self._wanted.get(stream)
        if subscription is None:
            subscription = self._wanted[stream] = Subscription(stream, rewind)
            self._fresh[subscription] = None
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Want a stream no more. `flush` is to be called soon."""
        if self._wanted.get(subscription.stream) is not subscription:
            return
        del self._wanted[subscription.stream]
        self._end(subscription)
        self._fresh.pop(subscription, None)

    def refresh(self, stream: str) -> None:
        """Ask for a stream from the beginning, with its state. `flush` is to be called soon."""
        subscription = self._wanted.get(stream)
        if subscription is None:
            return
        subscription.offset = None
        subscription.is_lost = False
        if subscription.status in (Status.ASKED, Status.LIVE):
            self._ask(subscription)

    def opened(self) -> None:
        """The connection is open: ask for everything."""
        self._is_open = True
        for name in ("offsets", "snapshot"):
            self._set_property(name)
        self.flush()

    def _set_property(self, name: str) -> None:
        def done(data: dict[str, Any]) -> None:
            if not self._is_open:
                return
            if data["e"] == "error":
                text = f"the server has no {name}: {data['msg']}"
                self._port.fail(FeedError("protocol", text, code=data.get("code")))
            elif not self.is_ready:
                self.is_ready = True
                self._port.ready()

        self._request("SET_PROPERTY", [name, True], {}, done)

    def lost(self, from_: float) -> None:
        """The connection is gone. `from_`: the last moment at which it was heard, in ms since 1970."""
        waiting = [done for _, done in (*self._requests.values(), *self._again)]
        self._again.clear()
        self._is_open = self.is_ready = self._is_paused = False
        self._refusals = 0
        self._requests.clear()
        self._leave.clear()
        self._leaving.clear()
        for subscription in self._wanted.values():
            if subscription.status is Status.LIVE and not subscription.is_lost:
                subscription.from_ = from_
            subscription.is_lost = subscription.is_replaying = False
            subscription.past = 0
            if subscription.status is not Status.REFUSED or subscription.refusal != _INVALID:
                self._renew(subscription)
        for done in waiting:
            done({"e": "error", "msg": "the connection was lost"})

    def flush(self) -> None:
        """Send what there is to ask."""
        if not self._is_open or self._is_paused:
            return
        for names in _portions(list(self._leave), len):
            self._leaving.update(names)
            self._unsubscribe(names)
        self._leave.clear()
        groups: dict[int | str, list[Subscription]] = {}
        for subscription in list(self._fresh):
            if subscription.stream in self._leaving:
                continue
            del self._fresh[subscription]
            key: int | str = subscription.stream
            if not subscription.refusal:
                key = subscription.rewind if subscription.offset is None else 0
            groups.setdefault(key, []).append(subscription)
        for group in groups.values():
            for some in _portions(group, lambda each: 2 * len(each.stream) + len(each.offset or "")):
                self._subscribe(some)

    def resume(self) -> None:
        """The pause that `later` asked for is over."""
        self._is_paused = False
        again, self._again = self._again, []
        for ask, _ in again:
            ask()
        self.flush()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._request("PING", None, {}, lambda data: None)

    def auth(self, token: str, answer: Answer) -> None:
        """Show another token."""

        def answered(result: Any, error: FeedError | None) -> None:
            if error is None:
                for subscription in self._wanted.values():
                    if subscription.status is Status.REFUSED and subscription.refusal == _NOT_PERMITTED:
                        self._renew(subscription)
                self.flush()
            answer(result, error)

        self._asked("AUTH", [token], {}, answered)

    def history(self, stream: str, fields: dict[str, Any], answer: Answer, *, is_patient: bool = False) -> None:
        """The last publications of a stream: a list of ``{"offset": …, "data": …}``. `fields`: limit and before."""
        self._asked("HISTORY", [stream], fields, answer, is_patient=is_patient)

    def message(self, text: bytes | str) -> None:
        """A message has come."""
        try:
            envelope = self._decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._strange(text)
            return
        subscription = self._wanted.get(envelope.stream)
        if subscription is not None:
            self._take(subscription, envelope)
        elif envelope.stream[:1] == "!":
            self._control(envelope)

    def _strange(self, text: bytes | str) -> None:
        why, final = "the server sent a message without stream and data: is the path / ?", False
        try:
            message = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            why = "the server sent what is not JSON"
        else:
            # Another dialect of the daemon, which it speaks on other paths and on these only.
            final = isinstance(message, dict) and "id" in message and bool({"result", "error"} & message.keys())
            if final:
                why = "the server answers as on the paths /stream and /ws; this client speaks that of the path /: " + (
                    "expected an address without a path, as ws://localhost:8080"
                )
        self._port.fail(FeedError("protocol", why, final=final))

    # Publications.

    def _take(self, subscription: Subscription, envelope: Envelope) -> None:
        if subscription.status is not _LIVE:
            return
        if subscription.is_lost:
            self._forget(subscription)
        offset = envelope.offset
        if offset is not None:
            if offset == subscription.offset and not self._is_snapshot(envelope):
                return
            subscription.offset = offset
        past = False
        if subscription.is_replaying:
            subscription.count += 1
            past = True
        elif subscription.past > 0:
            subscription.past -= 1
            past = True
        for reader in subscription.readers:
            reader.take(envelope, past)

    def _is_snapshot(self, envelope: Envelope) -> bool:
        data = self._read(envelope.data)
        return isinstance(data, dict) and bool(data.get("snapshot"))

    def _forget(self, subscription: Subscription) -> None:
        """Something is missing for good."""
        subscription.is_lost = False
        subscription.offset = None
        self._port.emit(Gap((subscription.stream,), "not-recovered", subscription.from_, subscription.to))

    # What the daemon says of itself.

    def _control(self, envelope: Envelope) -> None:
        if envelope.data and bytes(envelope.data)[:1] != b"{":
            return  # a stream of the daemon's own that is not wanted any more
        try:
            data = self._read(envelope.data)
            self._say(data)
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            why = f"the server sent what is no {envelope.stream[1:]} of marketfeed: {error!r}"
            self._port.fail(FeedError("protocol", why))

    def _say(self, data: dict[str, Any]) -> None:
        match data["e"]:
            case "reply" | "error":
                self._answered(data)
            case "gap":
                self._gap(tuple(data["streams"]), data["reason"], data["from"], data["to"])
            case "quality":
                streams = tuple(stream for stream in data["streams"] if stream in self._wanted)
                if streams:
                    self._port.emit(Quality(streams, data["level"], data["E"]))
            case "serverShutdown":
                self._port.shutdown(data["reconnectAfter"])
            case "expiring":
                self._port.emit(Expiring(data["E"], data["expiresAt"]))
                self._port.expiring()

    def _answered(self, data: dict[str, Any]) -> None:
        pending = self._requests.pop(data.get("id", 0), None)
        if pending is not None:
            pending[1](data)
        elif data["e"] == "error":
            # Behind an AUTH it says that streams have ended, and names them in words only.
            if data["code"] == _NOT_PERMITTED:
                self._request("LIST_SUBSCRIPTIONS", None, {}, lambda listed: self._listed(listed, data))
            else:
                self._port.failed_request(FeedError("refused", data["msg"], code=data["code"]))

    def _listed(self, listed: dict[str, Any], error: dict[str, Any]) -> None:
        if listed["e"] == "error":
            return
        there = set(listed["result"])
        for subscription in list(self._wanted.values()):
            if subscription.status is Status.LIVE and subscription.stream not in there:
                self._refuse(subscription, error)

    def _gap(self, streams: tuple[str, ...], reason: str, from_: float, to: float | None) -> None:
        wanted = [self._wanted[stream] for stream in streams if stream in self._wanted]
        for subscription in wanted:
            if reason == "sequence":
                subscription.offset = None
                subscription.is_lost = False
            elif to is None:
                if not subscription.is_lost:
                    subscription.from_ = from_
                subscription.is_lost = False
            elif subscription.status is Status.LIVE and subscription.offset is not None:
                self._ask(subscription)
        if wanted:
            self._port.emit(Gap(tuple(each.stream for each in wanted), reason, from_, to))
        self.flush()

    # Requests.

    def _request(self, method: str, params: Sequence[Any] | None, more: dict[str, Any], done: _Done) -> int:
        self._last_id += 1
        self._requests[self._last_id] = (self._port.ticks(), done)
        request = {"method": method} | ({} if params is None else {"params": params}) | more | {"id": self._last_id}
        self._port.send(msgspec.json.encode(request))
        return self._last_id

    def _asked(
        self, method: str, params: Sequence[Any], more: dict[str, Any], answer: Answer, *, is_patient: bool = False
    ) -> None:
        is_possible = self._is_open if method == "AUTH" else self.is_ready  # a token may end before the first answer
        if not is_possible:
            answer(None, FeedError("not-open", f"{method} needs an open connection: `await feed.ready()` first"))
            return

        def ask() -> None:
            self._request(method, params, more, done)

        def done(data: dict[str, Any]) -> None:
            code = data.get("code")
            if data["e"] != "error":
                self._refusals = 0
                answer(data["result"], None)
            elif is_patient and code == _TOO_MANY_REQUESTS and self._refusals < _MOST_REFUSALS:
                self._again.append((ask, done))
                self._pause()
            elif code is None:
                answer(None, FeedError("not-open", data["msg"]))
            else:
                answer(None, FeedError("refused", data["msg"], code=code, final=code <= _INVALID))

        ask()

    def _ask(self, subscription: Subscription) -> None:
        """Ask for a stream that the server has for us, anew."""
        self._end(subscription)
        self._renew(subscription)

    def _end(self, subscription: Subscription) -> None:
        if self._is_open and subscription.status in (Status.ASKED, Status.LIVE):
            self._leave[subscription.stream] = None

    def _renew(self, subscription: Subscription) -> None:
        subscription.status = Status.NEW
        subscription.is_replaying = False
        subscription.past = 0
        self._fresh[subscription] = None

    def _subscribe(self, subscriptions: list[Subscription]) -> None:
        since = {each.stream: each.offset for each in subscriptions if each.offset is not None}
        first = subscriptions[0]
        more: dict[str, Any] = {}
        if since:
            more["since"] = since
        if first.rewind and first.offset is None:
            more["rewind"] = first.rewind
        streams = [each.stream for each in subscriptions]
        asked = self._last_id + 1
        for each in subscriptions:
            each.status = Status.ASKED
            each.asked = asked
        self._request("SUBSCRIBE", streams, more, lambda data: self._subscribed(subscriptions, asked, data))
        if since:  # what was missed stands between the reply and the answer to this
            self._request("PING", None, {}, lambda data: self._replayed(subscriptions, asked))

    def _subscribed(self, subscriptions: list[Subscription], asked: int, data: dict[str, Any]) -> None:
        answered = [each for each in subscriptions if each.status is Status.ASKED and each.asked == asked]
        if data["e"] == "error":
            if self._is_open:
                self._subscribe_refused(answered, data)
            return
        self._refusals = 0
        recovered = data.get("recovered") or {}
        rewound = data.get("rewound") or {}
        for each in answered:
            each.status = Status.LIVE
            each.refusal = 0
            each.is_replaying = recovered.get(each.stream) is True
            each.is_lost = recovered.get(each.stream) is False
            each.past = rewound.get(each.stream, 0)
            each.to = self._port.now()
        for each in answered:
            if each.is_lost:
                self._tell_recovered(each, False)
            if each.stream in rewound:
                self._port.emit(Rewound(each.stream, rewound[each.stream]))

    def _subscribe_refused(self, subscriptions: list[Subscription], error: dict[str, Any]) -> None:
        if error["code"] == _TOO_MANY_REQUESTS:
            for each in subscriptions:
                self._renew(each)
            self._pause()
        elif len(subscriptions) > 1:
            half = len(subscriptions) // 2
            self._subscribe(subscriptions[:half])
            self._subscribe(subscriptions[half:])
        else:
            for each in subscriptions:
                self._refuse(each, error)

    def _refuse(self, subscription: Subscription, error: dict[str, Any]) -> None:
        code = error["code"]
        subscription.status = Status.REFUSED
        subscription.refusal = code
        final = code == _INVALID
        self._port.failed_request(
            FeedError("refused", error["msg"], code=code, stream=subscription.stream, final=final)
        )

    def _replayed(self, subscriptions: list[Subscription], asked: int) -> None:
        for each in subscriptions:
            if each.is_replaying and each.asked == asked:
                each.is_replaying = False
                self._tell_recovered(each, True)

    def _tell_recovered(self, subscription: Subscription, recovered: bool) -> None:
        count, subscription.count = subscription.count, 0
        self._port.emit(Recovered(subscription.stream, recovered, count))

    def _unsubscribe(self, names: list[str]) -> None:
        self._request("UNSUBSCRIBE", names, {}, lambda data: self._left(names, data))

    def _left(self, names: list[str], data: dict[str, Any]) -> None:
        if not self._is_open:
            return
        self._leaving.difference_update(names)
        if data.get("code") == _TOO_MANY_REQUESTS:
            self._leave.update(dict.fromkeys(names))
            self._pause()
            return
        for subscription in self._wanted.values():
            if subscription.refusal == _TOO_MANY_SUBSCRIPTIONS and subscription.status is Status.REFUSED:
                self._renew(subscription)
        self.flush()

    def _pause(self) -> None:
        if self._is_paused:
            return
        self._is_paused = True
        self._refusals += 1
        self._port.later(self._refusals)


def _portions(items: list[T], size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Lists that each fit a request."""
    some: list[T] = []
    size = 0
    for item in items:
        more = size_of(item) + 8
        if len(some) == _MOST_STREAMS or (some and size + more > _MOST_CHARACTERS):
            yield some
            some, size = [], 0
        some.append(item)
        size += more
    if some:
        yield some
