"""The clients of a load test, opened against a server that the test plays itself, and what is counted of them."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketfeed.commands.address import parse_url
from marketfeed.commands.bench.client import ClientFault, meet
from marketfeed.commands.bench.crowd import Crowd, draw, share_out
from marketfeed.commands.bench.tally import ANY
from marketfeed.commands.frames import CLOSE, PING
from tests.commands.bench.test_frames import enveloped, trade
from tests.commands.test_frames import frame, unmasked
from tests.commands.watch.test_connection import LOOPBACK, certificate
from tests.guard import DEADLINE

ACCEPT = b"(what the key asks for)"
HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n"
)
CONFIRMED = frame(b'{"result":null,"id":1}')


class Stage:
    """A listening socket, a crowd, and both ends of each connection, in one thread."""

    def __init__(
        self,
        streams: list[str],
        *,
        per_client: int = 1,
        slow: int = 0,
        first_number: int = 1,
        is_storm: bool = False,
        compression: bool = False,
        token: str | None = None,
        head: bytes = HEAD,
    ) -> None:
        self.head = head
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.selector = selectors.DefaultSelector()
        self.time = 5.25
        address = parse_url(f"ws://127.0.0.1:{self.listener.getsockname()[1]}/stream?x=1")
        meeting = meet(address, compression=compression, token=token)
        self.accept = meeting.handshake.accept
        self.listener.accept()[0].close()
        self.crowd = Crowd(
            self.selector,
            meeting,
            streams,
            lambda: self.time,
            per_client=per_client,
            slow=slow,
            first_number=first_number,
            is_storm=is_storm,
        )
        self.published = [0] * len(streams)
        self.crowd.published = self.published
        self.servers: list[socket.socket] = []

    def begin(self) -> bytes:
        """One more client connects; returns its handshake."""
        self.crowd.begin()
        self.servers.append(self.listener.accept()[0])
        self.servers[-1].settimeout(DEADLINE)
        self.poll(lambda: self.ready(-1))
        return self.servers[-1].recv(65536)

    def open(self, count: int = 1) -> list[list[str]]:
        """So many clients get their streams; returns what each has asked for."""
        asked = []
        for _ in range(count):
            self.begin()
            self.send(self.head + b"\r\n")
            self.poll(lambda: self.ready(-1))
            request = self.servers[-1].recv(65536)
            asked.append(msgspec.json.decode(unmasked(request)[1])["params"])
            before = self.crowd.open
            self.send(CONFIRMED)
            self.poll(lambda before=before: self.crowd.open > before)  # type: ignore[misc]
        return asked

    def send(self, data: bytes, client: int = -1) -> None:
        self.servers[client].sendall(data.replace(ACCEPT, self.accept))

    def ready(self, client: int) -> bool:
        """Whether the client has sent something that the server has not read."""
        with selectors.DefaultSelector() as looking:
            looking.register(self.servers[client], selectors.EVENT_READ)
            return bool(looking.select(0))

    def publish(self, *numbers: int, clients: list[int], stream: int = 0) -> None:
        """Clients get these, and have read them."""
        due = self.crowd.publications + len(numbers) * len(clients)
        name = self.crowd._streams[stream]
        for client in clients:
            for number in numbers:
                self.send(frame(enveloped(name, trade(number, name[-1]))), client)
        self.poll(lambda: self.crowd.publications == due)

    def poll(self, until: Callable[[], object]) -> None:
        """Let the crowd go on until that is so."""
        while not until():
            events = self.selector.select(DEADLINE if self.selector.get_map() else 0)
            assert events, "nothing happens"
            for key, _ in events:
                key.data()

    def close(self) -> None:
        self.crowd.close()
        self.selector.close()
        for server in (self.listener, *self.servers):
            server.close()


@pytest.fixture
def stages() -> Iterator[Callable[..., Stage]]:
    """Makes stages, and clears them away."""
    made: list[Stage] = []

    def make(*streams: str, **options: Any) -> Stage:
        made.append(Stage(list(streams or ("trade@A",)), **options))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


class TestOpening:
    def test_a_client_shows_its_token(self, stages: Callable[..., Stage]) -> None:
        """And asks for the URL's path, in a request that is whole."""
        request = stages(token="abc.def.ghi").begin()
        assert request.startswith(b"GET /stream?x=1 HTTP/1.1\r\n")
        assert b"\r\nAuthorization: Bearer abc.def.ghi\r\n" in request
        assert request.endswith(b"\r\n\r\n")

    def test_in_a_storm_whoever_has_had_nothing_yet_is_known(self, stages: Callable[..., Stage]) -> None:
        """Whatever number it begins with. Those who are slow, and those who have gone, are not waited for."""
        stage = stages(slow=1, first_number=ANY, is_storm=True)
        stage.open(4)
        assert stage.crowd.unserved == {1, 2, 3}
        stage.publish(7, clients=[2])
        assert stage.crowd.unserved == {1, 3}
        stage.servers[3].close()
        stage.poll(lambda: stage.crowd.closed)
        assert stage.crowd.unserved == {1}
        stage.publish(9, clients=[1, 2])
        assert not stage.crowd.unserved
        assert stage.crowd.lost() == 0, "as far as is known: of the other's stream only these"

    def test_each_client_asks_for_its_streams(self, stages: Callable[..., Stage]) -> None:
        """Two of three for each: every stream has as many clients as any other."""
        stage = stages("trade@A", "trade@B", "trade@C", per_client=2)
        assert stage.open(3) == [["trade@A", "trade@B"], ["trade@C", "trade@A"], ["trade@B", "trade@C"]]
        assert stage.crowd.subscribers == [2, 2, 2]
        assert stage.crowd.connects.total == stage.crowd.open == 3

    def test_streams_are_shared_out_evenly(self) -> None:
        """No two of a client's streams are one."""
        shares = [share_out(client, 4, 10) for client in range(5)]
        assert all(len(set(share)) == 4 for share in shares)
        assert all(sum(stream in share for share in shares) == 2 for stream in range(10))

    def test_streams_are_drawn(self) -> None:
        """No two of a client's streams are one, it has the same at every run, and hardly anybody else has them."""
        drawn = [draw(client, 4, 10) for client in range(100)]
        assert all(len(set(share)) == 4 and set(share) <= set(range(10)) for share in drawn)
        assert drawn == [draw(client, 4, 10) for client in range(100)]
        assert len({frozenset(share) for share in drawn}) > 50

    def test_an_answer_may_come_in_pieces(self, stages: Callable[..., Stage]) -> None:
        """And what stands behind it is the first of the frames."""
        stage = stages()
        stage.begin()
        for piece in (HEAD[:7], HEAD[7:], b"\r", b"\n" + CONFIRMED[:5], CONFIRMED[5:]):
            stage.send(piece)
            key = stage.selector.select(DEADLINE)[0][0]
            key.data()
        stage.poll(lambda: stage.crowd.open == 1)

    def test_compression_is_offered_and_may_be_accepted(self, stages: Callable[..., Stage]) -> None:
        """Without a context on either side, so that the same message is the same bytes for all."""
        accepted = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
        stage = stages(compression=True, head=HEAD + accepted)
        assert b"permessage-deflate; server_no_context_takeover; client_no_context_takeover" in stage.begin()
        stage.open()
        assert stage.crowd.deflated == 1

    @pytest.mark.parametrize(
        ("answer", "told"),
        [
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\nthe server is full\n", "503 Service Unavailable: the server is"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
            (HEAD + b"\r\n" + frame(b'{"error":{"code":2,"msg":"bad stream"},"id":1}'), "refuses the SUBSCRIBE: 2 bad"),
            (HEAD + b"\r\n" + frame(b"\x0f\xad", CLOSE), "closes client 1 at once, with 4013"),
            (HEAD + b"\r\n" + b"\x83\x00", "sends a frame that begins with 0x83"),
        ],
    )
    def test_a_refusal_is_one_line(self, stages: Callable[..., Stage], answer: bytes, told: str) -> None:
        """It names the server, and what it said."""
        stage = stages()
        stage.begin()
        stage.send(answer)
        with pytest.raises(ClientFault, match=told) as caught:
            stage.poll(lambda: False)
        assert "\n" not in str(caught.value)
        assert "x=1" not in str(caught.value), "a query may hold a token"

    def test_a_server_that_hangs_up_in_the_handshake(self, stages: Callable[..., Stage]) -> None:
        """It is refused like any other."""
        stage = stages()
        stage.begin()
        stage.servers[-1].close()
        with pytest.raises(ClientFault, match="no answer to the handshake"):
            stage.poll(lambda: False)

    def test_nobody_there(self) -> None:
        """A port that nobody listens on, and a host that nobody knows."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"ws://127.0.0.1:{free.getsockname()[1]}/"
            with pytest.raises(ClientFault, match=f"cannot reach {url}: Connection refused"):
                meet(parse_url(url), compression=False)
        with pytest.raises(ClientFault, match=r"cannot reach ws://nobody\.invalid:80/"):
            meet(parse_url("ws://nobody.invalid"), compression=False)


class TestCounting:
    def test_all_in_order(self, stages: Callable[..., Stage]) -> None:
        """Nothing is awaited, nothing lost, and the latency is the time since T."""
        stage = stages()
        stage.open(2)
        stage.published[0], stage.crowd.awaited, stage.time = 3, 6, 105.25
        stage.publish(1, 2, 3, clients=[0, 1])
        assert (stage.crowd.awaited, stage.crowd.lost(), stage.crowd.merged) == (0, 0, 0)
        found = stage.crowd.latencies.percentiles()
        assert found is not None
        assert found.max == 100
        assert stage.crowd.latencies.total == 6

    def test_latency_is_that_of_what_is_published_while_it_is_measured(self, stages: Callable[..., Stage]) -> None:
        """What was published before is left out however late it comes; the late ones of the rest are not."""
        stage = stages()
        stage.open()
        stage.published[0], stage.crowd.awaited, stage.time = 3, 3, 105.25
        stage.publish(1, clients=[0])
        stage.crowd.measure_from(5.252)
        stage.publish(2, clients=[0])
        assert stage.crowd.latencies.total == 0, "a trade of the test tells the time 5.25"
        stage.crowd.measure_from(5.25)
        stage.publish(3, clients=[0])
        assert stage.crowd.latencies.total == 1

    def test_what_one_client_misses_is_lost(self, stages: Callable[..., Stage]) -> None:
        """A number that was passed over, and one that never came; but nothing is awaited for ever."""
        stage = stages()
        stage.open(2)
        stage.published[0], stage.crowd.awaited = 4, 8
        stage.publish(1, 2, 3, 4, clients=[0])
        stage.publish(1, 3, clients=[1])
        assert stage.crowd.lost() == 2
        assert stage.crowd.lost(has_ended=False) == 1
        assert stage.crowd.awaited == 1

    def test_what_comes_twice_or_late(self, stages: Callable[..., Stage]) -> None:
        """It is told apart."""
        stage = stages()
        stage.open()
        stage.published[0] = 3
        stage.publish(1, 3, 2, 2, clients=[0])
        order = stage.crowd.order
        assert (stage.crowd.lost(), order.out_of_order, order.duplicated) == (0, 1, 1)

    def test_a_merged_update_counts_for_all_that_it_holds(self, stages: Callable[..., Stage]) -> None:
        """It is one publication, and no loss."""
        stage = stages("depth@A")
        stage.open()
        stage.published[0], stage.crowd.awaited = 4, 4
        stage.send(frame(enveloped("depth@A", b'{"e":"depth","U":1,"u":4,"a":[],"b":[]}')))
        stage.poll(lambda: stage.crowd.publications)
        assert (stage.crowd.awaited, stage.crowd.lost(), stage.crowd.merged) == (0, 0, 3)

    def test_of_an_existing_market_only_what_another_got_can_be_lost(self, stages: Callable[..., Stage]) -> None:
        """Its numbers begin anywhere and may jump."""
        stage = stages(first_number=ANY)
        stage.open(2)
        stage.publish(1000, 1002, 1010, clients=[0])
        stage.publish(1000, 1010, clients=[1])
        assert stage.crowd.lost() == 1

    def test_a_client_that_is_closed_waits_for_nothing(self, stages: Callable[..., Stage]) -> None:
        """It is counted by its code, and answered."""
        stage = stages()
        stage.open(2)
        stage.published[0], stage.crowd.awaited = 2, 4
        stage.publish(1, clients=[0, 1])
        stage.send(frame(b"\x0f\xa8slow", CLOSE), 1)
        stage.poll(lambda: stage.crowd.closed)
        assert unmasked(stage.servers[1].recv(100)) == (0x88, b"\x0f\xa8")
        assert (stage.crowd.open, stage.crowd.awaited, stage.crowd.subscribers) == (1, 1, [1])
        assert stage.crowd.closed == {4008: 1}
        stage.servers[0].close()
        stage.poll(lambda: stage.crowd.open == 0)
        assert (stage.crowd.awaited, stage.crowd.lost(), stage.crowd.closed) == (0, 0, {4008: 1, 1006: 1})

    def test_pings_are_answered_and_events_counted(self, stages: Callable[..., Stage]) -> None:
        """As a client has to."""
        stage = stages()
        stage.open()
        gap = b'{"stream":"!gap","data":{"e":"gap","streams":["trade@A"],"reason":"source-down","from":1,"to":null}}'
        stage.send(frame(gap) + frame(b"well?", PING) + frame(b'{"unheard":"of"}'))
        stage.poll(lambda: stage.ready(0))
        assert unmasked(stage.servers[0].recv(100)) == (0x8A, b"well?")
        assert stage.crowd.events == {"gap": 1, "unknown message": 1}

    def test_how_slow_clients_ended_is_read_at_the_end(self, stages: Callable[..., Stage]) -> None:
        """One was closed behind what it had not read, one was cut off, one is still open."""
        stage = stages(slow=3)
        stage.open(3)
        stage.send(frame(enveloped("trade@A", trade(1))) + frame(b"\x0f\xa8slow", CLOSE), 0)
        stage.servers[1].close()
        stage.send(frame(enveloped("trade@A", trade(1))), 2)
        crowd = stage.crowd
        crowd.listen_to_slow()
        stage.poll(lambda: crowd.slow_open == 1)
        stage.poll(lambda: crowd.slow_size > 2 * len(trade(1)))
        assert dict(crowd.slow_closed) == {4008: 1, 1006: 1}
        assert (crowd.closed, crowd.publications, crowd.open) == ({}, 0, 3)

    def test_a_slow_client_reads_nothing_after_its_confirmation(self, stages: Callable[..., Stage]) -> None:
        """It is open, and nobody waits for what it gets."""
        stage = stages(slow=1)
        stage.open(2)
        stage.published[0], stage.crowd.awaited = 1, 1
        stage.send(frame(enveloped("trade@A", trade(1))), 0)
        stage.publish(1, clients=[1])
        assert (stage.crowd.open, stage.crowd.subscribers) == (2, [1])
        assert (stage.crowd.publications, stage.crowd.lost()) == (1, 0)


class SecureServer(threading.Thread):
    """Takes connections through TLS, confirms one client's streams, sends, and waits until the client has gone."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, sent: bytes) -> None:
        super().__init__()
        self._listener = listener
        self._tls = context
        self._sent = sent
        self.accept = b""

    def run(self) -> None:
        self._listener.accept()[0].close()
        link = self._listener.accept()[0]
        try:
            with self._tls.wrap_socket(link, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(HEAD.replace(ACCEPT, self.accept) + b"\r\n")
                secure.recv(65536)
                secure.sendall(CONFIRMED + self._sent)
                secure.recv(65536)
        except OSError:
            pass


@pytest.mark.filterwarnings("ignore:dump_privatekey is deprecated:DeprecationWarning")
@pytest.mark.parametrize("is_trusted", [True, False])
def test_tls(is_trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than one record at a time is read to its end; and a certificate that nobody trusts is refused."""
    served = certificate(LOOPBACK)
    pem = tmp_path / "server.pem"
    pem.write_bytes(served.dumpPEM())
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener, selectors.DefaultSelector() as selector:
        messages = [frame(enveloped("trade@A", trade(number, "A", 5000))) for number in range(1, 41)]
        server = SecureServer(listener, context, b"".join(messages))
        server.start()
        address = parse_url(f"wss://127.0.0.1:{listener.getsockname()[1]}")
        meeting = meet(address, compression=False)
        server.accept = meeting.handshake.accept
        crowd = Crowd(selector, meeting, ["trade@A"], lambda: 0.0, per_client=1, slow=0, first_number=1)
        crowd.published = [len(messages)]
        crowd.begin()

        def go_on() -> None:
            while not (crowd.open and crowd.clients[0].waits_for == {0: 41}):
                events = selector.select(DEADLINE)
                assert events, "nothing happens"
                for key, _ in events:
                    key.data()

        try:
            if is_trusted:
                go_on()
                assert crowd.lost() == 0
            else:
                with pytest.raises(ClientFault, match="certificate verify failed"):
                    go_on()
        finally:
            crowd.close()
            server.join()
