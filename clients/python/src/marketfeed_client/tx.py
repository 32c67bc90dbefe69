"""The client for Twisted, on Autobahn; the extra ``twisted`` installs both.

1. All timers are of the reactor that is given, and none is left once `close` is done: Autobahn's own are not used.
2. Everything that comes in one read is handed over at once.
3. A Deferred goes on at once with whoever waits for it. So loops are woken in a turn of their own, behind the core.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import CancelledError, Deferred, DeferredList, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from marketfeed_client.core import Close, Connect, Renew, Send
from marketfeed_client.errors import FeedError
from marketfeed_client.feed import NO_MESSAGE, refused_with
from marketfeed_client.loop_feed import LoopFeed
from marketfeed_client.stream import Pause

__all__ = ["Client"]

T = TypeVar("T")
_LARGEST = 64 * 2**20
_CLOSING = 2.0
_GOING = 1000


class _Refused(Exception):
    """The handshake was answered otherwise than hoped."""

    def __init__(self, status: int, text: str, retry_after: str) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after = status, text, retry_after


class _Protocol(WebSocketClientProtocol):
    """A connection that hands over all messages of a read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.on_texts: Callable[[list[bytes]], None] | None = None
        self.on_lost: Callable[[int, str], None] | None = None
        self._texts: list[bytes] = []
        self._why: Exception | None = None

    def onOpen(self) -> None:
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._texts.append(NO_MESSAGE if isBinary else payload)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._hand_over()

    def failHandshake(self, reason: str) -> None:
        status = getattr(self, "http_status_line", "").split()
        if self._why is None and len(status) > 1 and status[1].isdecimal() and status[1] != "101":
            body = self.data.partition(b"\r\n\r\n")[2].decode(errors="replace")[:200]
            self._why = _Refused(int(status[1]), body, self.http_headers.get("retry-after", ""))
        super().failHandshake(reason)  # type: ignore[no-untyped-call]

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        self._hand_over()
        answer: bool | None = super().onCloseFrame(code, reasonRaw)
        self._lost()
        return answer

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._hand_over()
        if not self.opened.called:
            self.opened.errback(self._why or reason.value)
        self._lost()
        if not self.gone.called:
            self.gone.callback(None)

    def _hand_over(self) -> None:
        if self._texts and self.on_texts is not None:
            texts, self._texts = self._texts, []
            self.on_texts(texts)

    def _lost(self) -> None:
        if self.on_lost is not None:
            code = self.remoteCloseCode
            self.on_lost(1006 if code is None else code, self.remoteCloseReason or "")

    def send_now(self, text: bytes) -> None:
        """Send a text message, if that is still possible."""
        if self.state == self.STATE_OPEN:
            self.sendMessage(text)  # type: ignore[no-untyped-call]

    def hang_up(self) -> None:
        """End it without a word."""
        transport: Any = self.transport
        transport.abortConnection()

    def listen(self, on_texts: Callable[[list[bytes]], None], on_lost: Callable[[int, str], None]) -> None:
        """What came already, and what comes."""
        self.on_texts, self.on_lost = on_texts, on_lost
        self._hand_over()
        if self.gone.called or self.remoteCloseCode is not None:
            self._lost()


class Client(LoopFeed):
    """A live connection to marketfeed: ``async with Client(url) as feed``, or `start` and `close`.

    Its coroutines run in Twisted's: ``ensureDeferred``, ``Deferred.fromCoroutine``. `reactor`: the global one if it is
    not given. `tls`: the options of a client's TLS, by default those of ``optionsForClientTLS``. `url` and `token` may
    be functions that return a Deferred. The other arguments are those of every feed.
    """

    def __init__(self, url: Any, *, reactor: Any = None, tls: Any = None, **options: Any) -> None:
        super().__init__(url, **options)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._tls = tls
        self._is_started = False
        self._connection: _Protocol | None = None
        self._connecting: Deferred[None] | None = None
        self._timer: Any = None
        self._tasks: set[Deferred[None]] = set()

    def start(self) -> None:
        """Connect, and stay connected until `close`."""
        self._is_started = True
        self._core.start()
        self._pump()

    def close(self) -> Deferred[None]:
        """End it for good, whatever it is doing. Fires when nothing of it is left."""
        self._core.close()
        self._pump()
        waiting = [_beside(task) for task in self._tasks]
        return DeferredList(waiting).addCallback(lambda _: None)

    # What the feed asks for.

    def _soon(self, job: Callable[[], None]) -> None:
        if self._is_started:
            self._spawn(lambda: _call(job))
        else:
            self._is_flushing = False  # it is asked for once the connection is open

    def _pause(self) -> Pause:
        come: Deferred[None] = Deferred()

        async def resume() -> None:
            if not come.called:
                come.callback(None)

        return come, lambda: self._spawn(resume)

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> Deferred[None]:
        """Do it in the next turn of the reactor."""
        task: Deferred[Any] = deferLater(self._reactor, 0, lambda: ensureDeferred(work()))
        self._tasks.add(task)

        def over(result: Any) -> None:
            self._tasks.discard(task)
            if isinstance(result, Failure):
                result.trap(CancelledError)

        task.addBoth(over)
        return task

    def _pump(self) -> None:
        if not self._is_started:
            return
        for action in self._actions():
            match action:
                case Connect(attempt=attempt):
                    self._connecting = self._spawn(lambda number=attempt: self._connect(number))  # type: ignore[misc]
                case Send(text=text):
                    if self._connection is not None:
                        self._connection.send_now(text)
                case Renew(attempt=attempt):
                    self._spawn(lambda number=attempt: self._renew(number))  # type: ignore[misc]
                case Close():
                    self._hang_up()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._core.deadline
        if deadline is not None:
            self._timer = self._reactor.callLater(max(0.0, deadline - self._clock.ticks()) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._core.tick()
        self._pump()

    def _hang_up(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.on_texts = connection.on_lost = None
            self._spawn(lambda: self._closed(connection))

    async def _closed(self, connection: _Protocol) -> None:
        if connection.gone.called:
            return
        connection.sendClose(_GOING)
        timer = self._reactor.callLater(_CLOSING, connection.hang_up)
        await _beside(connection.gone)
        if timer.active():
            timer.cancel()

    async def _connect(self, attempt: int) -> None:
        core, mine = self._core, self._connecting
        try:
            connection = await self._opened(*await self._where())
        except CancelledError:
            return
        except FeedError as error:
            self._leave_attempt(mine)
            core.failed(attempt, error)
        except _Refused as error:
            after = error.retry_after
            hint = float(after) * 1000 * (1 + core.chance()) if after.isdecimal() else None
            self._leave_attempt(mine)
            core.failed(attempt, refused_with(error.status, error.text, callable(self._token)), hint)
        except Exception as error:
            self._leave_attempt(mine)
            core.failed(attempt, self._unreached(error))
        else:
            self._leave_attempt(mine)
            self._connection = connection
            core.opened(attempt)
            connection.listen(
                lambda texts: self._do(core.received, attempt, texts),
                lambda code, reason: self._do(core.closed, attempt, code, reason),
            )
        self._pump()

    def _leave_attempt(self, mine: Deferred[None] | None) -> None:
        """It is over by itself, and is not to be cancelled."""
        if self._connecting is mine:
            self._connecting = None

    async def _opened(self, url: str, token: str | None) -> _Protocol:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_secure = parts.scheme == "wss"
        protocols = ["marketfeed", f"bearer.{token}"] if token else None
        factory = WebSocketClientFactory(url, protocols=protocols, reactor=self._reactor)
        factory.protocol = _Protocol
        factory.noisy = False
        factory.setProtocolOptions(
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            maxMessagePayloadSize=_LARGEST,
            maxFramePayloadSize=_LARGEST,
        )
        endpoint: Any = HostnameEndpoint(self._reactor, host, parts.port or (443 if is_secure else 80))
        if is_secure:
            endpoint = wrapClientTLS(self._tls or optionsForClientTLS(host), endpoint)
        connection: _Protocol = await endpoint.connect(factory)
        try:
            await connection.opened
        except CancelledError:
            connection.hang_up()
            await _beside(connection.gone)
            raise
        return connection

    def _do(self, method: Callable[..., None], *arguments: Any) -> None:
        method(*arguments)
        self._pump()


async def _call(job: Callable[[], None]) -> None:
    job()


def _beside(watched: Deferred[None]) -> Deferred[None]:
    """Fires when `watched` has, and leaves that as it is."""
    done: Deferred[None] = Deferred()

    def fired(result: Any) -> Any:
        done.callback(None)
        return result

    watched.addBoth(fired)
    return done
