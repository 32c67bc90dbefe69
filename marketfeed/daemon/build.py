"""The daemon put together: every part made once, from the settings, in the order in which they start."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from twisted.application.service import IService, MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized

from marketfeed.access.addresses import ConnectionCounts, ConnectRate, TrustedProxies
from marketfeed.access.admission import Admission
from marketfeed.access.keys import BadKey, KeyFiles, load_keys
from marketfeed.access.origins import AllowedOrigins
from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.health import Health
from marketfeed.api.metrics import Parts
from marketfeed.config.settings import Settings
from marketfeed.daemon.admin_port import endpoint, make_admin
from marketfeed.daemon.redis_side import StartFault, check_redis_files, make_feed
from marketfeed.daemon.reload import Changeable, Reload
from marketfeed.daemon.report import Report
from marketfeed.hub.hub import Hub, HubLimits
from marketfeed.hub.shares import Shares
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.file_limit import raise_file_limit, room_for_connections
from marketfeed.runtime.garbage import GarbageCollector
from marketfeed.runtime.listener import CannotServe, Listener
from marketfeed.runtime.logs import Log, make_observer
from marketfeed.runtime.loop_delay import LoopDelay
from marketfeed.runtime.memory import MemoryGuard
from marketfeed.runtime.systemd import Systemd
from marketfeed.session.context import SessionContext
from marketfeed.session.limits import SessionLimits
from marketfeed.session.session import METHODS, OTHER
from marketfeed.websocket.connection import ClientFactory
from marketfeed.websocket.connections import UserManager
from marketfeed.websocket.handshake import Handshakes
from marketfeed.websocket.heartbeat import Heartbeat

__all__ = ["Daemon", "StartFault", "build"]


class Daemon(MultiService):
    """The root of the tree. It drains the clients first, then stops its services one after the other.

    `in_front`: twistd has not gone to the background; `pid_file`: which twistd writes, "" for none; `observer`: what
    is to write the log, in place of twistd's own.
    """

    log = Log()

    def __init__(
        self, reactor: Any, users: UserManager, in_front: bool, pid_file: str, observer: ILogObserver | None = None
    ) -> None:
        MultiService.__init__(self)
        self._reactor = reactor
        self._users = users
        self._in_front = in_front
        self._pid_file = pid_file
        self._observer = observer
        self.stops: tuple[IService, ...] = ()
        """The services in the order in which they stop."""
        self.reload: Callable[[], None] = lambda: None
        """What SIGHUP asks for."""
        self._stopping = False

    def setServiceParent(self, parent: Any) -> None:
        """twistd makes us part of its application, and asks that for an observer of the log."""
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        MultiService.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        self._take_signals()
        try:
            MultiService.privilegedStartService(self)
        except CannotServe as fault:
            if not self._in_front:
                sys.tracebacklimit = 0  # one line in the log, too
                raise OSError(str(fault)) from None  # the shortest name: twistd, in the foreground, shows 98 characters
            if self._pid_file and os.path.exists(self._pid_file):
                os.unlink(self._pid_file)
            raise SystemExit(f"marketfeed: {fault}") from None

    def startService(self) -> None:
        self._reactor.callWhenRunning(self._take_signals)  # the reactor sets its own as it begins to run
        MultiService.startService(self)

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._reactor.callFromThread(self._end, number))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))

    def _reload(self) -> None:
        try:
            self.reload()
        except Exception:
            self.log.failure("a reload failed: internal error")

    def _end(self, number: int) -> None:
        """SIGTERM drains; SIGINT and any second one end at once."""
        self.log.info("ending: {signal}", signal=signal.Signals(number).name)
        if number != signal.SIGTERM or self._stopping:
            self._users.hurry()
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._users.drain()
        for service in self.stops:
            try:
                await maybeDeferred(service.stopService)
            except Exception:
                self.log.failure("{service} could not be stopped", service=service.__class__.__name__)
        self.log.info("stopped")


def build(
    reactor: Any, settings: Settings, twistd: Mapping[str, Any], load_again: Callable[[], Settings] | None = None
) -> Daemon:
    """The tree of services. `twistd`: twistd's own options; `load_again`: reads the settings once more. Raises
    `StartFault`.
    """
    started_at = time.time()
    notes: list[str] = []
    files = raise_file_limit()
    room, most = room_for_connections(files)  # of clients, and of handshakes
    max_connections = _fitting(settings, notes, room)
    kinds = StreamKinds(settings.all_kinds)
    users = UserManager(reactor, max_connections, 0.0 if settings.demo else settings.drain_seconds, time.time)
    collector = GarbageCollector(reactor, lambda: len(users))
    memory = MemoryGuard(reactor, settings.memory_limit)
    loop = LoopDelay(reactor)
    hub = Hub(reactor, msgspec.convert(settings, HubLimits, from_attributes=True), kinds=kinds)
    refusals = Refusals(reactor)
    heartbeat = Heartbeat(reactor, users, settings.ping_interval, settings.ping_timeout)
    feed = make_feed(reactor, settings, hub, kinds)
    public = endpoint(reactor, "--port", settings.port)
    health = Health(lambda: hub.overview.source_reached, users, memory, with_memory=settings.ready_memory)
    verifier = _verifier(reactor, settings)
    admission = _admission(reactor, settings, users, memory, verifier)
    requests = Counter(dict.fromkeys((*METHODS, OTHER), 0))
    context = SessionContext(
        hub=hub,
        kinds=kinds,
        limits=msgspec.convert(settings, SessionLimits, from_attributes=True),
        now=reactor.seconds,
        verify=admission.verify,
        refusals=refusals,
        requests=requests,
        lines=users.lines,
    )
    handshakes = Handshakes(
        reactor,
        admission,
        kinds,
        lambda: health.is_ready,
        compression=settings.compression,
        most=most,
        books=hub,
        refusals=refusals,
    )
    clients = ClientFactory(reactor, handshakes, users, context, settings.max_message, traffic=hub.counts.traffic)
    listener = Listener(public, clients, settings.port)
    systemd = Systemd(reactor, os.environ, lambda: users.drain_seconds)
    observer = None
    if not twistd.get("logger") and not twistd.get("syslog"):
        observer = make_observer(reactor, twistd, settings.log_format, settings.log_level)
    reload = Reload(
        settings,
        load_again or (lambda: settings),
        partial(_read_files, reactor),
        partial(_fitting, room=room),
        Changeable(users, clients, admission, verifier, hub, kinds, memory, observer),
        time.time,
    )
    parts = Parts(
        reactor,
        time.time,
        hub=hub,
        clients=users,
        refusals=refusals,
        requests=requests,
        links=lambda: feed.links,
        health=health,
        memory=memory,
        collector=collector,
        loop=loop,
        certificate_expiry=lambda: listener.certificate_expiry,
        files=files,
        started_at=started_at,
        reload=reload,
    )
    admin = [] if settings.admin == "off" else [make_admin(reactor, reload, parts, kinds, users.run)]
    report = Report(reactor, settings, listener, max_connections, notes, admin[0] if admin else None)
    daemon = Daemon(reactor, users, bool(twistd.get("nodaemon")), twistd.get("pidfile") or "", observer)
    own = (collector, memory, loop, hub, refusals, users, heartbeat)
    for service in (*feed.server, *own, *feed.readers, *feed.market, listener, *admin, systemd, report):
        service.setServiceParent(daemon)
    last = (*admin, refusals, report, loop, memory, collector, *feed.server, systemd)
    daemon.stops = (heartbeat, *feed.market, *reversed(feed.readers), hub, users, listener, *last)
    daemon.reload = partial(systemd.reload, reload)
    return daemon


def _read_files(reactor: Any, settings: Settings) -> KeyFiles | None:
    """The keys for tokens, where there are any, once all other files are known to be of use. Raises `StartFault`."""
    check_redis_files(settings)
    if "ssl:" in settings.port:
        endpoint(reactor, "--port", settings.port)
    return None if settings.auth == "off" else _keys(reactor, settings)


def _admission(
    reactor: Any, settings: Settings, users: UserManager, memory: MemoryGuard, verifier: TokenVerifier | None
) -> Admission:
    proxies = TrustedProxies(settings.trusted_proxy)
    return Admission(
        reactor,
        users,
        memory,
        origins=AllowedOrigins(settings.allowed_origin),
        proxies=proxies,
        rate=ConnectRate(settings.connect_rate, spare_local_but=proxies if settings.spares_local else None),
        counts=ConnectionCounts(settings.max_connections_per_address),
        verifier=verifier,
        needs_token=settings.auth == "required",
        shares=Shares(settings.max_distinct_streams_per_address),
    )


def _verifier(reactor: Any, settings: Settings) -> TokenVerifier | None:
    if settings.auth == "off":
        return None
    keys = _keys(reactor, settings)
    return TokenVerifier(keys.current, time.time, audience=settings.auth_audience, issuer=settings.auth_issuer)


def _keys(reactor: Any, settings: Settings) -> KeyFiles:
    option = "--auth-key"
    try:
        if settings.auth_key is not None:
            load_keys(settings.auth_key, None)  # by itself first, so that the line can name the option
        option = "--auth-jwks"
        return KeyFiles(settings.auth_key, settings.auth_jwks, reactor.seconds)
    except BadKey as fault:
        raise StartFault(f"{option}: {fault}") from None


def _fitting(settings: Settings, notes: list[str], room: int) -> int:
    """The number of clients that the limit on open files has room for. A default that is lowered worries nobody."""
    wanted = settings.max_connections
    if wanted > room and settings.gives_max_connections:
        notes.append(f"--max-connections is lowered from {wanted} to {room}: no more files may be open at once")
    return min(wanted, room)
