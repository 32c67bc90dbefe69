"""The tree of services: what it is made of, what reaches its parts, what it says when it cannot be built."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import Application, IService, MultiService
from twisted.internet.address import IPv6Address
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, formatEvent

import marketfeed.daemon.build
import marketfeed.daemon.checks
import marketfeed.daemon.redis_side
import marketfeed.daemon.root
from marketfeed.access.admission import Admitted
from marketfeed.access.tokens import BadToken
from marketfeed.config.settings import Settings, load
from marketfeed.daemon.build import build
from marketfeed.daemon.redis_side import StartFault
from marketfeed.daemon.root import Daemon
from marketfeed.demo.embedded import EmbeddedServer, NoServerFound
from marketfeed.demo.simulator import MarketSimulation
from marketfeed.http.head import Head
from marketfeed.http.response import Response
from marketfeed.hub.hub import Hub
from marketfeed.redis.address import EMBEDDED, parse_redis_url
from marketfeed.redis.archive import RedisArchive
from marketfeed.redis.preload import Preload
from marketfeed.redis.publisher import RoutedPublisher
from marketfeed.redis.pubsub import RedisPubSub
from marketfeed.redis.routed_commands import RoutedCommands
from marketfeed.redis.routed_source import RoutedSource
from marketfeed.redis.snapshots import RedisSnapshots
from marketfeed.redis.split_source import SplitSource
from marketfeed.redis.streams import RedisStreams
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.memory import MemoryGuard, MemoryLimit
from marketfeed.websocket.connection import ClientFactory, ClientProtocol
from marketfeed.websocket.connections import UserManager
from tests.conftest import LogCapture
from tests.daemon.fakes import FakeReactor, FakeUsers, SignalModule
from tests.docs_runner import blocks
from tests.tokens import SECRET, jwk, private_pem, public_bytes, signed, write_jwks

IN_FRONT = {"nodaemon": 1, "pidfile": ""}
FILES = 1000
HANDSHAKES = 109
"""What of these files is for connections without a request; 128 are for other things."""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a daemon would change of its process stays as it is."""
    monkeypatch.setattr(marketfeed.daemon.build, "raise_file_limit", lambda: FILES)
    monkeypatch.setattr(marketfeed.daemon.redis_side, "find_server", lambda: "/bin/server")
    monkeypatch.setattr(marketfeed.daemon.checks, "make_observer", lambda *arguments: arguments)
    monkeypatch.setattr(marketfeed.daemon.root, "signal", SignalModule({}))
    monkeypatch.setattr("txaio.tx.config.loop", Clock())


def report(daemon: Daemon) -> None:
    """Let a daemon's last service say what it has to say."""
    last = list(daemon)[-1]
    last.startService()
    for call, args, kwargs in last._reactor.whenRunningHooks:
        call(*args, **kwargs)


def names(services: list[IService]) -> list[str]:
    return [service.__class__.__name__ for service in services]


def asked(daemon: Daemon, path: str) -> Any:
    """What the daemon answers a request for a WebSocket with this path."""
    return part(daemon, Listener)._factory.handshakes.router.ask(Head("GET", path, "", {"upgrade": "websocket"}), None)


def is_ready(daemon: Daemon) -> bool:
    """What it tells who asks."""
    return bool(asked(daemon, "/readyz").status == 200)


def part(daemon: Daemon, kind: type) -> Any:
    (found,) = [service for service in daemon if isinstance(service, kind)]
    return found


def tree(service: IService, depth: int = 0) -> list[str]:
    """The service and all below it, a line each, as the page has them."""
    children = list(service) if isinstance(service, MultiService) else []
    below = [line for child in children for line in tree(child, depth + 1)]
    return ["  " * depth + service.__class__.__name__, *below]


def described(conditions: set[str], *, of_workers: bool = False) -> list[str]:
    """The tree of docs/architecture.md#the-tree-of-services, without what stands there only under other conditions.

    `of_workers`: that of docs/architecture.md#workers.
    """
    one, other = (block for block in blocks("diagram") if block.text.startswith("Daemon\n"))
    block = other if of_workers else one
    lines, left_out = [], None
    for line in block.text.splitlines():
        name, _, condition = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        if left_out is not None and depth > left_out:
            continue
        wanted = {part.strip() for part in condition.split(",") if part.strip()}
        left_out = None if wanted <= conditions else depth
        if left_out is None:
            lines.append("  " * depth + name)
    return lines


def everything(service: IService) -> list[IService]:
    children = list(service) if isinstance(service, MultiService) else []
    return [service, *(each for child in children for each in everything(child))]


WARM = {"--warm", "or --demo"}
DEMO = WARM | {"--candles", "--demo", "or --redis-url embedded:"}
TREES = [
    (Settings(), {"--source pubsub"}),
    (Settings(source="streams"), {"--source streams"}),
    (Settings(demo=True, redis=EMBEDDED), DEMO | {"--source pubsub"}),
    (Settings(demo=True, redis=EMBEDDED, source="streams"), DEMO | {"--source streams"}),
    (Settings(warm=("depth@A",)), WARM | {"--source pubsub"}),
    (Settings(warm=("depth@*",)), WARM | {"--source pubsub", "--warm with a pattern"}),
    (Settings(warm=("depth@*",), source="streams"), WARM | {"--source streams", "--warm with a pattern"}),
]


class TestTree:
    @pytest.mark.parametrize(("settings", "conditions"), TREES)
    def test_it_is_the_one_that_is_described(self, settings: Settings, conditions: set[str]) -> None:
        """docs/architecture.md#the-tree-of-services shows it, with what is there only under some settings."""
        assert tree(build(FakeReactor(), settings, IN_FRONT)) == described(conditions)

    @pytest.mark.parametrize("source", ["pubsub", "streams"])
    def test_where_the_master_is_known_later(self, source: str) -> None:
        """What looks for it starts before what reads from it; nothing is there yet for the server itself."""
        settings = Settings(redis=parse_redis_url("redis-sentinel://a/feed"), source=source)
        found = tree(build(FakeReactor(), settings, IN_FRONT))
        page = described({"--redis-url redis-sentinel:"})
        looks = page[page.index("  SentinelTopology") : page.index("  RoutedCommands")]
        at = found.index("  SentinelTopology")
        sources = {"pubsub": ["  RoutedSource"], "streams": ["  SplitSource", "    RoutedSource"]}
        rest = [*looks, "  RoutedCommands", "  RedisSnapshots", *sources[source], "  CandleWatch"]
        assert found[at : at + len(rest) + 1] == [*rest, "  MarketList"]

    @pytest.mark.parametrize("settings", [settings for settings, _ in TREES])
    def test_no_service_is_kept_beside_it(self, settings: Settings) -> None:
        """Whatever one service holds of another is in the tree, too: nobody starts or stops it but its parent."""
        services = everything(build(FakeReactor(), settings, IN_FRONT))
        for service in services:
            held = [value for value in vars(service).values() if IService.providedBy(value)]
            assert [each for each in held if each not in services] == [], service


class TestBuild:
    def test_in_which_order_a_daemon_stops(self) -> None:
        """What is needed stops after what needs it, as it starts before: docs/architecture.md shows in which order."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        assert names(daemon.stops) == [
            *("Heartbeat", "MarketList", "CandleWatch", "RoutedSource", "RedisSnapshots", "RoutedCommands"),
            *("Hub", "UserManager", "Listener"),
            *("AdminPort", "Refusals", "Report", "LoopDelay", "MemoryGuard", "GarbageCollector", "Systemd"),
        ]

    def test_in_which_order_a_demo_stops(self) -> None:
        """The server is there first and last; the market ends before the link that brings it."""
        daemon = build(FakeReactor(), Settings(demo=True, redis=EMBEDDED), IN_FRONT)
        assert names(daemon.stops) == [
            *(
                "Heartbeat",
                "MarketSimulation",
                "RoutedPublisher",
                "CandleService",
                "Preload",
                "MarketList",
                "CandleWatch",
                "RoutedSource",
                "RedisSnapshots",
                "RoutedCommands",
            ),
            *(
                "Hub",
                "UserManager",
                "Listener",
                "AdminPort",
                "Refusals",
                "Report",
                "LoopDelay",
                "MemoryGuard",
                "GarbageCollector",
                "EmbeddedServer",
                "Systemd",
            ),
        ]
        assert part(daemon, UserManager).drain_seconds == 0
        for kind in (EmbeddedServer, MarketSimulation, RoutedPublisher):
            assert part(daemon, kind)
        assert {"depth@TATA_INR", "ticker@BTC_INR", "trade@INFY_INR"} <= set(part(daemon, Preload)._names)
        assert not list(part(daemon, Preload)), "nobody listens"

    def test_streams_that_are_kept_ready(self) -> None:
        """By name, and by pattern, which takes a listener."""
        daemon = build(FakeReactor(), Settings(warm=("depth@A",)), IN_FRONT)
        assert not list(part(daemon, Preload))
        assert part(daemon, Preload)._names == ["depth@A"]
        daemon = build(FakeReactor(), Settings(warm=("depth@A", "ticker@*"), channel_prefix="p:"), IN_FRONT)
        ((sampler,),) = part(daemon, Preload)
        assert sampler._patterns == [b"p:ticker@*"]
        assert part(daemon, Preload)._discovered == part(daemon, Hub).discovered

    def test_the_parts_with_streams(self) -> None:
        """Another source, what its archive asks through, and a market that adds to streams."""
        daemon = build(
            FakeReactor(), Settings(source="streams", demo=True, redis=EMBEDDED, channel_prefix="p:"), IN_FRONT
        )
        assert set(daemon.stops) == set(daemon)
        (engine,) = part(daemon, SplitSource)
        part(daemon, SplitSource).want("kline_1m@A")
        _, candles = part(daemon, SplitSource)
        (server,), (channels,) = engine, candles
        assert (type(server), type(channels)) == (RedisStreams, RedisPubSub)
        assert (server._prefix, engine._prefix, channels._prefix) == (b"p:", b"p:", b"p:")
        assert (server.called, channels.called) == ("redis", "redis candles")
        archive = part(daemon, Hub)._upstream.archive
        assert isinstance(archive, RedisArchive)
        assert archive._prefix == b"p:"
        assert archive._commands is part(daemon, RoutedCommands)

    def test_an_embedded_server_without_a_market(self) -> None:
        """For an engine on the same machine."""
        daemon = build(FakeReactor(), Settings(redis=EMBEDDED), IN_FRONT)
        assert names(list(daemon))[0] == "EmbeddedServer"
        assert not any(isinstance(service, MarketSimulation) for service in daemon)
        assert part(daemon, UserManager).drain_seconds == 20

    def test_every_part_is_stopped(self) -> None:
        """None is forgotten in the second list."""
        for settings in (Settings(), Settings(demo=True, redis=EMBEDDED), Settings(warm=("depth@*",))):
            daemon = build(FakeReactor(), settings, IN_FRONT)
            assert set(daemon.stops) == set(daemon)

    def test_the_settings_reach_the_parts(self) -> None:
        """Each where it is used."""
        settings = Settings(
            port="0",
            channel_prefix="p:",
            max_streams=3,
            request_rate=4.0,
            request_burst=5,
            max_message=6,
            client_queue=7000,
            validate="warn",
            max_payload=8,
            max_distinct_streams=9,
            linger=1.5,
            max_connections=10,
            drain_seconds=11.0,
            memory_limit=MemoryLimit(size=12 << 20),
        )
        reactor = FakeReactor()
        daemon = build(reactor, settings, IN_FRONT)
        limits = part(daemon, Hub)._upstream._limits
        assert (limits.channel_prefix, limits.strict, limits.max_payload) == ("p:", False, 8)
        assert (limits.max_distinct_streams, limits.linger) == (9, 1.5)
        (server,) = part(daemon, RoutedSource)
        assert isinstance(server, RedisPubSub)
        assert (server._prefix, part(daemon, RoutedSource)._prefix) == (b"p:", b"p:")
        place = part(daemon, RedisSnapshots)._place_of("depth@A")
        assert place.words == ("GETRANGE", b"p:snapshot:depth@A", "0", "8")
        assert part(daemon, RedisSnapshots)._place_of("kline_1M@A").key == b"p:candles:{A}:state"
        assert part(daemon, UserManager).drain_seconds == 11
        factory = part(daemon, Listener)._factory
        assert isinstance(factory, ClientFactory)
        limits = factory.context.limits
        assert (limits.max_streams, limits.request_rate, limits.request_burst) == (3, 4.0, 5)
        assert factory.client_queue == 7000
        assert factory.handshakes.most == HANDSHAKES
        assert part(daemon, MemoryGuard)._wanted == MemoryLimit(size=12 << 20)
        protocol = factory.buildProtocol(IPv6Address("TCP", "::1", 5))
        assert isinstance(protocol, ClientProtocol)
        assert protocol.maxMessagePayloadSize == protocol.maxFramePayloadSize == 6

    def test_ready_is_who_was_reached_and_does_not_drain(self) -> None:
        """Losing the source again changes nothing."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        hub = part(daemon, Hub)
        assert not is_ready(daemon)
        hub.reached("redis")
        assert is_ready(daemon)
        hub.lost(0, [], "redis")
        assert is_ready(daemon)
        part(daemon, UserManager).draining = True
        assert not is_ready(daemon)

    def test_short_of_memory_it_is_not_ready(self) -> None:
        """Until there is enough again; whoever comes by in the meantime is told so."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        part(daemon, Hub).reached("redis")
        guard = part(daemon, MemoryGuard)
        guard.is_full = True
        assert not is_ready(daemon)
        assert status(daemon) == 503
        guard.is_full = False
        assert is_ready(daemon)
        assert status(daemon) == 101

    @pytest.mark.parametrize(("asked", "granted"), [(763, 763), (764, 763), (20000, 763)])
    def test_there_are_no_more_clients_than_files(self, asked: int, granted: int, logged: LogCapture) -> None:
        """Less those for other things and for handshakes; that it was lowered is said once it runs."""
        daemon = build(FakeReactor(), Settings(max_connections=asked, gives_max_connections=True), IN_FRONT)
        users = part(daemon, UserManager)
        assert users.max_connections == granted
        report(daemon)
        warnings = [event["note"] for event in logged.events if event["log_level"].name == "warn"]
        lowered = f"--max-connections is lowered from {asked} to 763: no more files may be open at once"
        assert warnings == ([] if asked == granted else [lowered])

    def test_a_default_is_lowered_without_a_warning(self, logged: LogCapture) -> None:
        """Nobody has asked for it; how many fit is said with the rest."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        assert part(daemon, UserManager).max_connections == 763
        report(daemon)
        (banner,) = logged.events
        assert (banner["log_level"].name, banner["max_connections"]) == ("info", 763)
        assert ": up to 763 clients on " in formatEvent(banner)

    def test_at_least_one_client_fits(self, monkeypatch: pytest.MonkeyPatch, logged: LogCapture) -> None:
        """However few files there are, and the line says so."""
        monkeypatch.setattr(marketfeed.daemon.build, "raise_file_limit", lambda: 64)
        daemon = build(FakeReactor(), Settings(gives_max_connections=True), IN_FRONT)
        assert part(daemon, UserManager).max_connections == 1
        report(daemon)
        assert "from 20000 to 1:" in logged.events[0]["note"]

    @pytest.mark.parametrize("demo", [True, False])
    def test_what_it_is_is_said_at_the_start(
        self, monkeypatch: pytest.MonkeyPatch, demo: bool, logged: LogCapture
    ) -> None:
        """Where, from which Redis without its password, the warnings; in a demo also what to do next."""
        monkeypatch.setattr(sys, "argv", ["/opt/env/bin/twistd"])
        redis = EMBEDDED if demo else parse_redis_url("redis://:secret@example.com:6380/1")
        daemon = build(
            FakeReactor(), Settings(demo=demo, redis=redis, max_connections=1, warnings=("careful",)), IN_FRONT
        )
        part(daemon, Listener).privilegedStartService()
        report(daemon)
        _, warning, banner, *hint = logged.events
        assert warning["note"] == "careful"
        assert banner["redis"] == redis
        others = ", ".join(rf"{name} \d+\.\d+\S*" for name in ("Python", "Twisted", "Autobahn", "OpenSSL"))
        parts = rf"marketfeed \d+\.\d+\S* \((?:not )?compiled\), {others}"
        assert re.match(parts + ": ", formatEvent(banner))
        assert banner["python"] == platform.python_version()
        assert "secret" not in repr(logged.events)
        assert len(hint) == demo
        if demo:
            assert hint[0]["command"] == "/opt/env/bin/marketfeed"
            assert hint[0]["url"] == f"ws://localhost:{part(daemon, Listener).port_number}"

    def test_the_log_is_ours_unless_twistd_was_told(self) -> None:
        """The application, which twistd asks for it, gets it."""
        settings = Settings(log_format="json", log_level="warn")
        application = Application("x")
        reactor = FakeReactor()
        build(reactor, settings, IN_FRONT).setServiceParent(application)
        assert application.getComponent(ILogObserver) == (reactor, IN_FRONT, "json", "warn")  # type: ignore[attr-defined]
        for told in ({"logger": "x.y"}, {"syslog": 1}):
            application = Application("x")
            build(FakeReactor(), settings, told).setServiceParent(application)
            assert application.getComponent(ILogObserver, None) is None  # type: ignore[attr-defined]

    def test_it_can_be_a_part_of_another_service(self) -> None:
        """Which is no application, and is asked for nothing."""
        daemon = build(FakeReactor(), Settings(), IN_FRONT)
        other = Daemon(FakeReactor(), FakeUsers(), True, "")
        daemon.setServiceParent(other)
        assert list(other) == [daemon]


def admit(daemon: Daemon, peer: str | None = "203.0.113.7", path: str = "/", **headers: str) -> Admitted | Response:
    """What becomes of a request from `peer`. Names of headers have underscores."""
    admission = part(daemon, Listener)._factory.handshakes.admission
    path, _, query = path.partition("?")
    fields = {name.replace("_", "-"): value for name, value in {"host": "feed.example", **headers}.items()}
    head = Head("GET", path, query, fields)
    return admission.admit(admission.address(peer, head), head)  # type: ignore[no-any-return]


def status(daemon: Daemon, peer: str | None = "203.0.113.7", path: str = "/", **headers: str) -> int:
    """The same, as the status of the answer."""
    answer = admit(daemon, peer, path, **headers)
    return answer.status if isinstance(answer, Response) else 101


def access(**flags: str) -> Daemon:
    """A daemon with these options, given as flags."""
    return build(FakeReactor(), load(flags, {}), IN_FRONT)


class TestAccess:
    """The settings reach what decides who comes in."""

    def test_without_settings(self) -> None:
        """Pages of the same host and all programs come in, as often as 300 times in 5 minutes, without a token."""
        daemon = access()
        assert status(daemon, origin="https://feed.example") == 101
        assert status(daemon, origin="https://other.example") == 403
        assert [status(daemon) for _ in range(299)] == [101] * 298 + [429]
        assert [status(daemon, "10.0.0.1") for _ in range(301)] == [101] * 301
        with pytest.raises(BadToken, match="takes no tokens"):
            part(daemon, Listener)._factory.context.verify(signed())

    def test_origins(self) -> None:
        """Those that are listed, in place of the host's own."""
        daemon = access(allowed_origin="https://app.example,https://*.app.example")
        assert status(daemon, origin="https://app.example") == 101
        assert status(daemon, origin="https://beta.app.example") == 101
        assert status(daemon, origin="https://feed.example") == 403

    def test_connections_of_an_address(self) -> None:
        """Behind a proxy that is trusted, the address of the client counts."""
        daemon = access(max_connections_per_address="1", trusted_proxy="198.51.100.0/24")
        assert status(daemon) == 101
        assert status(daemon) == 429
        assert status(daemon, "198.51.100.1", x_forwarded_for="192.0.2.1") == 101
        assert status(daemon, "198.51.100.1", x_forwarded_for="192.0.2.1") == 429
        assert status(daemon, "203.0.113.8", x_forwarded_for="192.0.2.2") == 101
        assert status(daemon, "203.0.113.8", x_forwarded_for="192.0.2.3") == 429

    def test_a_rate_that_is_given_spares_nobody(self) -> None:
        """A local address neither."""
        daemon = access(connect_rate="1")
        assert [status(daemon, "127.0.0.1") for _ in range(2)] == [101, 429]

    def test_the_default_rate_spares_no_proxy(self) -> None:
        """Whose clients all seem to be there where it does not say who they are."""
        daemon = access(trusted_proxy="10.0.0.1")
        assert [status(daemon, "10.0.0.1") for _ in range(301)] == [101] * 300 + [429]
        assert [status(daemon, "10.0.0.2") for _ in range(301)] == [101] * 301

    def test_a_token_may_be_needed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Programs get 401 without a good one; with one its bearer is known, on the wire and to AUTH."""
        monkeypatch.setattr(marketfeed.daemon.build.time, "time", lambda: 1_700_000_000.0)
        daemon = access(auth="required", auth_key=secret_file(tmp_path))
        assert status(daemon) == 401
        assert status(daemon, path="/?token=x") == 401
        answer = admit(daemon, path=f"/?token={signed()}")
        assert isinstance(answer, Admitted)
        assert answer.identity is not None
        assert answer.identity.user == "alice"
        assert part(daemon, Listener)._factory.context.verify(signed()) == answer.identity

    def test_a_token_may_be_optional(self, tmp_path: Path) -> None:
        """But one that is bad is refused all the same."""
        daemon = access(auth="optional", auth_key=secret_file(tmp_path))
        assert status(daemon) == 101
        assert status(daemon, path="/?token=x") == 401

    def test_whom_a_token_is_for_and_from(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys of both files, the audience and the issuer."""
        monkeypatch.setattr(marketfeed.daemon.build.time, "time", lambda: 1_700_000_000.0)
        keys = write_jwks(tmp_path / "keys.json", jwk("RS256", kid="r"))
        daemon = access(
            auth="required", auth_key=secret_file(tmp_path), auth_jwks=keys, auth_audience="feed", auth_issuer="us"
        )
        for algorithm, headers in (("HS256", None), ("RS256", {"kid": "r"})):
            good = signed(algorithm, headers=headers, aud="feed", iss="us")
            assert status(daemon, authorization=f"Bearer {good}") == 101
            for claims in ({"aud": "feed"}, {"iss": "us"}, {"aud": "feed", "iss": "them"}):
                bad = signed(algorithm, headers=headers, **claims)
                assert status(daemon, authorization=f"Bearer {bad}") == 401

    def test_declared_kinds(self, tmp_path: Path) -> None:
        """Beside those that are built in, for paths and for requests."""
        config = tmp_path / "marketfeed.toml"
        config.write_text("[streams.funding]\nloss = 'latest'\n")
        daemon = access(config=str(config))
        for stream in ("funding@X", "trade@X"):
            assert asked(daemon, f"/ws/{stream}").streams == [stream]
            assert str(part(daemon, Listener)._factory.context.kinds.parse(stream)) == stream
        assert asked(access(), "/ws/funding@X").status == 400


def secret_file(directory: Path) -> str:
    path = directory / "secret"
    path.write_bytes(SECRET)
    return str(path)


class TestFaults:
    def test_keys_that_cannot_be_used(self, tmp_path: Path) -> None:
        """The line names the option, the file and what would be accepted."""
        missing = str(tmp_path / "missing")
        private = tmp_path / "private.pem"
        private.write_bytes(private_pem("RS256"))
        public = tmp_path / "public.pem"
        public.write_bytes(public_bytes("RS256"))
        for flags, line in (
            ({"auth_key": missing}, f"--auth-key: {missing}: No such file or directory"),
            ({"auth_jwks": missing}, f"--auth-jwks: {missing}: No such file or directory"),
            ({"auth_key": str(public), "auth_jwks": missing}, f"--auth-jwks: {missing}: No such file or directory"),
            ({"auth_key": missing, "auth_jwks": missing}, f"--auth-key: {missing}: No such file or directory"),
            ({"auth_key": str(private)}, f"--auth-key: {private}: is a private key; expected the public one, from: "),
            ({"auth_jwks": str(public)}, f"--auth-jwks: {public}: is no JWKS; expected "),
        ):
            with pytest.raises(StartFault) as caught:
                access(auth="required", **flags)
            assert str(caught.value).startswith(line)
            assert len(str(caught.value).splitlines()) == 1

    def test_no_server_to_embed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The line says what to install."""

        def find_server() -> str:
            raise NoServerFound("install one")

        monkeypatch.setattr(marketfeed.daemon.redis_side, "find_server", find_server)
        with pytest.raises(StartFault, match=r"^install one$"):
            build(FakeReactor(), Settings(redis=EMBEDDED), IN_FRONT)

    def test_a_ca_that_cannot_be_read(self) -> None:
        """The line names the option."""
        settings = Settings(redis=parse_redis_url("rediss://x"), redis_ca="/nonexistent")
        with pytest.raises(StartFault, match=r"^--redis-ca: /nonexistent: No such file or directory$"):
            build(FakeReactor(), settings, IN_FRONT)

    @pytest.mark.parametrize("url", ["rediss-sentinel://x/feed", "rediss-cluster://x"])
    def test_a_ca_for_several_servers(self, url: str) -> None:
        """The same."""
        settings = Settings(redis=parse_redis_url(url), redis_ca="/nonexistent")
        with pytest.raises(StartFault, match=r"^--redis-ca: /nonexistent: No such file or directory$"):
            build(FakeReactor(), settings, IN_FRONT)

    def test_a_port_that_cannot_be_read(self) -> None:
        """The line names the option and what would be accepted."""
        with pytest.raises(StartFault, match=r"^--port: .*endpoint description.*nonsense"):
            build(FakeReactor(), Settings(port="nonsense:"), IN_FRONT)
