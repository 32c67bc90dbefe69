"""The daemon put together: every part made once, from the settings, in the order in which they start."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from twisted.application.service import IService

from marketfeed.access.addresses import REST_WINDOW, AddressRate, ConnectionCounts, ConnectRate, TrustedProxies
from marketfeed.access.admission import Admission
from marketfeed.access.origins import AllowedOrigins
from marketfeed.access.refusals import Refusals
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.health import Health
from marketfeed.api.listing import Listing
from marketfeed.api.market_page import market_files, market_page
from marketfeed.api.metrics import Parts
from marketfeed.api.routes import plain_answers, rest_answers
from marketfeed.config.settings import Settings, changed
from marketfeed.daemon.admin_port import admin_port, make_views
from marketfeed.daemon.checks import endpoint, fitting, keys_of, log_output, read_files
from marketfeed.daemon.redis_side import declared_markets, make_feed
from marketfeed.daemon.reload import Changeable, Reload
from marketfeed.daemon.report import Report
from marketfeed.daemon.root import Daemon
from marketfeed.daemon.workers.answers import Answers
from marketfeed.daemon.workers.worker import Control, Place
from marketfeed.http.router import Router
from marketfeed.hub.hub import Hub, HubLimits
from marketfeed.hub.shares import Shares
from marketfeed.model.markets import Markets
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.file_limit import raise_file_limit, room_for_connections
from marketfeed.runtime.garbage import GarbageCollector
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.loop_delay import LoopDelay
from marketfeed.runtime.memory import MemoryGuard
from marketfeed.runtime.systemd import Systemd
from marketfeed.session.context import SessionContext
from marketfeed.session.limits import SessionLimits
from marketfeed.session.session import METHODS, OTHER
from marketfeed.websocket.connection import ClientFactory
from marketfeed.websocket.connections import UserManager
from marketfeed.websocket.handshake import HANDSHAKE_SECONDS, Handshakes
from marketfeed.websocket.heartbeat import Heartbeat

__all__ = ["build"]


def build(
    reactor: Any,
    settings: Settings,
    twistd: Mapping[str, Any],
    load_again: Callable[[], Settings] | None = None,
    place: Place | None = None,
) -> Daemon:
    """The tree of services. `twistd`: twistd's own options; `load_again`: reads the settings once more; `place`: of
    this process among the workers, if it is one. Raises `StartFault`.
    """
    started_at = time.time()
    given = settings
    load_again = load_again or (lambda: given)
    share = 1
    if place is not None:
        share, settings, load_again = place.role.workers, place.settle(settings), partial(_settled, place, load_again)
    notes: list[str] = []
    files = raise_file_limit()
    room, most = room_for_connections(files)  # of clients, and of handshakes
    fit = partial(fitting, room=room, share=share)
    max_connections = fit(settings, notes)
    markets = Markets(declared_markets(settings))
    kinds = StreamKinds(settings.all_kinds, markets.aliases, rebuilds=settings.payloads == "binance")
    users = UserManager(reactor, max_connections, 0.0 if settings.demo else settings.drain_seconds, time.time)
    collector = GarbageCollector(reactor, lambda: len(users))
    memory = MemoryGuard(reactor, settings.memory_limit, share=share)
    loop = LoopDelay(reactor)
    hub = Hub(reactor, msgspec.convert(settings, HubLimits, from_attributes=True), kinds=kinds)
    refusals = Refusals(reactor)
    heartbeat = Heartbeat(reactor, users, settings.ping_interval, settings.ping_timeout)
    feed = make_feed(reactor, settings, hub, kinds)
    listing = Listing(markets, feed.heard, feed.known)
    public = endpoint(reactor, "--port", settings.port, None if place is None else place.sockets)
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
    assert feed.candles is not None
    rest = rest_answers(hub, feed.candles, kinds, listing, time.time, lambda: admission.rest.rate)
    plain = plain_answers(admission, rest, lambda: health.is_ready)
    if given.demo:
        plain |= market_files()
    handshakes = Handshakes(
        reactor,
        admission,
        Router(kinds, plain, market_page if given.demo else None),
        compression=settings.compression,
        most=most,
        refusals=refusals,
    )
    handshakes.answered.update(dict.fromkeys([(path, 200) for path in rest], 0))
    clients = ClientFactory(reactor, handshakes, users, context, settings.max_message, traffic=hub.counts.traffic)
    listener = Listener(public, clients, settings.port)
    observer = log_output(reactor, twistd, settings) if place is None else place.observer
    reload = Reload(
        settings,
        load_again,
        partial(read_files, reactor),
        fit,
        Changeable(users, clients, admission, verifier, hub, kinds, listing, memory, observer),
        time.time,
    )
    parts = Parts(
        reactor,
        time.time,
        hub=hub,
        clients=users,
        refusals=refusals,
        requests=requests,
        answered=handshakes.answered,
        links=lambda: feed.links,
        health=health,
        memory=memory,
        collector=collector,
        loop=loop,
        certificate_expiry=lambda: listener.certificate_expiry,
        files=files,
        started_at=started_at,
        reload=reload,
        candles=feed.maker,
        candle_links=lambda: feed.maker_links,
    )
    if place is None:
        views = make_views(reactor, parts, kinds, users.run, lambda: changed(reload.settings))
        admin = [] if settings.admin == "off" else [admin_port(reactor, settings, views.pages, views.samples)]
        report = Report(reactor, settings, listener, max_connections, notes, admin[0] if admin else None)
        systemd = Systemd(reactor, os.environ, lambda: users.drain_seconds)
        daemon = Daemon(reactor, users, bool(twistd.get("nodaemon")), twistd.get("pidfile") or "", observer)
        daemon.reload = partial(systemd.reload, reload)
        shown: list[IService] = [*admin, systemd, report]
        last: tuple[IService, ...] = (*admin, refusals, report, loop, memory, collector, *feed.server, systemd)
    else:
        role = place.role
        views = make_views(reactor, parts, kinds, users.run, dict, number=role.number, first_sample=role.first_sample)
        daemon = Daemon(reactor, users, in_front=True, observer=observer, heeds_signals=False)
        control = Control(
            reactor,
            place,
            daemon,
            Answers(views),
            hub.pasts,
            hub.epochs,
            reload,
            handshakes,
            HANDSHAKE_SECONDS,
            notes,
        )
        hub.ask(control)
        shown = [views.samples, control]
        last = (views.samples, refusals, loop, memory, collector, control)
    daemon.begins_to_end = handshakes.keep_no_more
    own = (collector, memory, loop, hub, refusals, users, heartbeat)
    for service in (*feed.server, *own, *feed.readers, *feed.market, listener, *shown):
        service.setServiceParent(daemon)
    daemon.stops = (heartbeat, *feed.market, *reversed(feed.readers), hub, users, listener, *last)
    return daemon


def _settled(place: Place, load: Callable[[], Settings]) -> Settings:
    return place.settle(load())


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
        rest=AddressRate(
            settings.rest_rate, REST_WINDOW, spare_local_but=proxies if settings.rest_spares_local else None
        ),
        counts=ConnectionCounts(settings.max_connections_per_address),
        verifier=verifier,
        needs_token=settings.auth == "required",
        shares=Shares(settings.max_distinct_streams_per_address),
    )


def _verifier(reactor: Any, settings: Settings) -> TokenVerifier | None:
    if settings.auth == "off":
        return None
    keys = keys_of(reactor, settings)
    return TokenVerifier(keys.current, time.time, audience=settings.auth_audience, issuer=settings.auth_issuer)
