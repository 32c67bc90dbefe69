"""The client for asyncio, on websockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from marketfeed_client.core import Close, Connect, Renew, Send
from marketfeed_client.errors import FeedError
from marketfeed_client.feed import NO_MESSAGE, refused_with
from marketfeed_client.loop_feed import LoopFeed
from marketfeed_client.stream import Pause

__all__ = ["Client"]

T = TypeVar("T")

_LARGEST = 64 * 2**20
_CLOSING = 2.0
_PLAIN_TEXT = 0x81
_LARGEST_HEAD = 2**17


class _Connection(ClientConnection):
    """A connection that hands over all messages of a read at once."""

    on_texts: Callable[[list[bytes]], None] | None = None
    on_lost: Callable[[int, str], None] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parts: list[bytes] = []
        self._texts: list[bytes] = []
        self._rest = b""
        self._is_raw = False  # everything goes to websockets
        self._is_binary = False  # what the parts are of

    def data_received(self, data: bytes) -> None:
        if self.response is None:
            self._rest += data
            head, end, frames = self._rest.partition(b"\r\n\r\n")
            if end:
                self._rest = b""
                super().data_received(head + end)
                self._is_raw = self.protocol.state.name != "OPEN"
                self._cut(frames)
            elif len(self._rest) > _LARGEST_HEAD:
                super().data_received(self._rest)  # which is too much for it
                self._is_raw = True
        else:
            self._cut(data)
        self._hand_over()

    def _cut(self, data: bytes) -> None:
        """Take what lies in whole plain text frames, and leave all else to websockets.

        websockets is given whole frames only, so that it is between two of them at any time; what is not plain is
        compressed, in parts, a control frame, or wrong.
        """
        if self._is_raw:
            super().data_received(data)
            return
        if self._rest:
            data = self._rest + data
        place, size = 0, len(data)
        texts = self._texts
        while size - place >= 2:
            length = data[place + 1]
            start = place + 2
            if length == 126:
                start += 2
                length = int.from_bytes(data[place + 2 : start])
            elif length == 127:
                start += 8
                length = int.from_bytes(data[place + 2 : start])
            elif length > 127:
                length = 0  # masked, which a server's frame must not be
            if start > size:
                break
            end = start + length
            if length > _LARGEST or data[place + 1] > 127:
                self._is_raw = True  # websockets says why, and closes
                super().data_received(data[place:])
                return
            if end > size:
                break
            if data[place] == _PLAIN_TEXT and not self._parts:
                texts.append(data[start:end])
            else:
                super().data_received(data[place:end])
                if self.protocol.state.name != "OPEN":
                    self._is_raw = True
                    super().data_received(data[end:])
                    return
            place = end
        self._rest = data[place:]

    def process_event(self, event: Any) -> None:
        if self.response is None:
            super().process_event(event)
        elif event.opcode in (0, 1, 2):
            if event.opcode:
                self._is_binary = event.opcode == 2
            self._parts.append(event.data)
            if event.fin:
                self._texts.append(NO_MESSAGE if self._is_binary else b"".join(self._parts))
                self._parts.clear()
        else:
            super().process_event(event)
            if event.opcode == 8:
                self._hand_over()
                self._lost()

    def _hand_over(self) -> None:
        if self._texts and self.on_texts is not None:
            texts, self._texts = self._texts, []
            self.on_texts(texts)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._hand_over()
        self._lost()

    def _lost(self) -> None:
        if self.on_lost is not None:
            received = self.protocol.close_rcvd
            self.on_lost(received.code if received else 1006, received.reason if received else "")

    def listen(self, on_texts: Callable[[list[bytes]], None], on_lost: Callable[[int, str], None]) -> None:
        """What came already, and what comes."""
        self.on_texts, self.on_lost = on_texts, on_lost
        self._hand_over()
        if self.protocol.close_rcvd or self.connection_lost_waiter.done():
            self._lost()

    def send_now(self, text: bytes) -> None:
        """Send a text message, if that is still possible."""
        if self.protocol.state.name == "OPEN":
            self.protocol.send_text(text)
            self.send_data()


class Client(LoopFeed):
    """A live connection to marketfeed: ``async with Client(url) as feed``.

    It connects by itself, and again whenever the connection is lost, until the block ends or an error is final.
    `connect_options` are those of ``websockets.connect``, as ssl, proxy or additional_headers; `compression` is
    ``"deflate"`` or None. The other arguments are those of every feed.
    """

    def __init__(
        self, url: Any, *, compression: str | None = None, connect_options: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(url, **options)
        self._options = {"compression": compression, "max_size": _LARGEST, **(connect_options or {})}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Connect, and stay connected until `close`. It is called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._core.start()
        self._pump()

    async def close(self) -> None:
        """End it for good, whatever it is doing."""
        self._core.close()
        self._pump()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # What the feed asks for.

    def _soon(self, job: Callable[[], None]) -> None:
        if self._loop is None:
            self._is_flushing = False  # it is asked for once the connection is open
        else:
            self._loop.call_soon(job)

    def _pause(self) -> Pause:
        come: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return come, partial(_settle, come)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _pump(self) -> None:
        if self._loop is None:
            return
        for action in self._actions():
            match action:
                case Connect(attempt=attempt):
                    self._connecting = self._spawn(self._connect(attempt))
                case Send(text=text):
                    if self._connection is not None:
                        self._connection.send_now(text)
                case Renew(attempt=attempt):
                    self._spawn(self._renew(attempt))
                case Close():
                    self._hang_up()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._core.deadline
        if deadline is not None:
            pause = max(0.0, deadline - self._clock.ticks()) / 1000
            self._timer = self._loop.call_later(pause, self._tick)

    def _tick(self) -> None:
        self._core.tick()
        self._pump()

    def _hang_up(self) -> None:
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        self._connecting = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.on_texts = connection.on_lost = None
            self._spawn(_closed(connection))

    async def _connect(self, attempt: int) -> None:
        core = self._core
        try:
            url, token = await self._where()
            protocols = [Subprotocol("marketfeed"), Subprotocol(f"bearer.{token}")] if token else None
            connection = await connect(
                url,
                subprotocols=protocols,
                create_connection=_Connection,
                open_timeout=None,
                ping_interval=None,
                close_timeout=_CLOSING,
                **self._options,
            )
        except FeedError as error:
            core.failed(attempt, error)
        except InvalidStatus as error:
            response = error.response
            text = bytes(response.body or b"").decode(errors="replace")[:200]
            after = response.headers.get("Retry-After", "")
            hint = float(after) * 1000 * (1 + self._core.chance()) if after.isdecimal() else None
            core.failed(attempt, refused_with(response.status_code, text, callable(self._token)), hint)
        except Exception as error:
            core.failed(attempt, self._unreached(error))
        else:
            assert isinstance(connection, _Connection)
            self._connection, self._connecting = connection, None
            core.opened(attempt)
            connection.listen(
                lambda texts: self._do(core.received, attempt, texts),
                lambda code, reason: self._do(core.closed, attempt, code, reason),
            )
        self._pump()

    def _do(self, method: Callable[..., None], *arguments: Any) -> None:
        method(*arguments)
        self._pump()


def _settle(come: asyncio.Future[None]) -> None:
    if not come.done():
        come.set_result(None)


async def _closed(connection: _Connection) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        await connection.close()
