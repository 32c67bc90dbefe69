"""The parent of the workers put together: it holds the port, supervises them, and speaks for them on the admin port.

What the machine has once is here: the sockets, the log, the signals, what systemd is told, a server and a market of our
own. Everything that a client sees is in the workers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from marketfeed.api.candles import CandleHealth
from marketfeed.api.news import News, reload_failed
from marketfeed.api.pages import Pages
from marketfeed.config.settings import BadSetting, Settings, changed
from marketfeed.daemon.admin_port import admin_port
from marketfeed.daemon.checks import fitting, log_output, opened_endpoint, read_files
from marketfeed.daemon.redis_side import StartFault, make_market
from marketfeed.daemon.report import Report
from marketfeed.daemon.root import Daemon
from marketfeed.daemon.workers.crew import Crew
from marketfeed.daemon.workers.messages import Role
from marketfeed.daemon.workers.pages import CrewLists, CrewMetrics, CrewStatus
from marketfeed.daemon.workers.process import Program
from marketfeed.daemon.workers.sockets import Opener
from marketfeed.demo.embedded import EmbeddedServer
from marketfeed.runtime.file_limit import raise_file_limit, room_for_connections
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.logs import Log, LogOutput
from marketfeed.runtime.systemd import Systemd

__all__ = ["build_parent"]


class CrewReload:
    """Call it for each SIGHUP: the settings are read and checked here, and if they can be used, by each worker."""

    log = Log()

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        read_files: Callable[[Settings], object],
        crew: Crew,
        output: LogOutput | None,
    ) -> None:
        self.settings = settings
        """What was read last without a fault."""
        self._load = load
        self._read_files = read_files
        self._crew = crew
        self._output = output
        self._directory = os.getcwd()
        self.succeeded = True
        """Whether the last one did in all workers, or there was none."""
        self.last = time.time()
        """When it was, in s since 1970; before the first, the start."""

    async def __call__(self) -> None:
        self.last = time.time()
        if self._output is not None:
            self._output.reopen()
        try:
            with contextlib.chdir(self._directory):
                settings = self._load()
                self._read_files(settings)
        except (BadSetting, StartFault, OSError) as fault:
            self.succeeded = False
            self.log.error("nothing is reloaded: {fault}", fault=str(fault))
            return
        self.settings = settings
        if self._output is not None:
            self._output.set_level(settings.log_level)
        self._crew.drain_seconds = 0.0 if settings.demo else settings.drain_seconds
        self.succeeded = await self._crew.reload()
        if not self.succeeded:
            self.log.error("not all workers have been reloaded")

    @property
    def news(self) -> list[News]:
        """What an operator should know of the parent. Of its workers, each tells by itself."""
        return [] if self.succeeded else [reload_failed(self.last)]


def build_parent(
    reactor: Any,
    settings: Settings,
    twistd: Mapping[str, Any],
    load_again: Callable[[], Settings],
    arguments: tuple[str, ...],
) -> Daemon:
    """The tree of services. `arguments`: the options of the daemon, which the workers get, too. Raises `StartFault`."""
    workers = settings.workers or 1
    notes: list[str] = []
    files = raise_file_limit()
    read_files(reactor, settings)
    each = fitting(settings, notes, room=room_for_connections(files)[0], share=workers)
    opener = Opener(reactor, workers)
    listener = Listener(opened_endpoint(opener, "--port", settings.port), Factory(), settings.port)
    feed, server = make_market(reactor, settings)
    program = Program(arguments, os.getcwd(), dict(os.environ), _twistd_options(twistd))
    role = Role(0, workers, settings.port, [], 0, server)
    crew = Crew(reactor, workers, program, role, lambda: opener.queues, _when_served(feed.server))
    crew.drain_seconds = 0.0 if settings.demo else settings.drain_seconds
    observer = log_output(reactor, twistd, settings)
    reload = CrewReload(settings, load_again, lambda new: read_files(reactor, new), crew, observer)
    admin: list[IService] = []
    if settings.admin != "off":
        status = CrewStatus(
            crew, secrets.token_hex(4), time.time, lambda: changed(reload.settings), lambda: reload.news
        )
        metrics = CrewMetrics(crew, reload, files, feed.maker, lambda: feed.maker_links)
        candles = None if feed.maker is None else CandleHealth(feed.maker)
        admin = [admin_port(reactor, settings, Pages(crew, metrics, status, CrewLists(crew), candles))]
    systemd = Systemd(reactor, os.environ, lambda: crew.drain_seconds, is_well=lambda: crew.is_turning, waits=True)
    crew.on_listening = systemd.ready
    report = Report(reactor, settings, listener, workers * each, notes, cast(Any, admin[0]) if admin else None)
    daemon = Daemon(reactor, crew, bool(twistd.get("nodaemon")), twistd.get("pidfile") or "", observer)
    for service in (*feed.server, *feed.market, listener, crew, *admin, systemd, report):
        service.setServiceParent(daemon)
    daemon.stops = (crew, *feed.market, listener, *admin, report, *feed.server, systemd)
    daemon.reload = lambda: systemd.reload(lambda: Deferred.fromCoroutine(reload()))
    daemon.roll = crew.roll
    return daemon


def _when_served(services: list[IService]) -> Callable[[], Deferred[None]] | None:
    """What the workers wait for before they start: a server of our own, if there is one."""
    for service in services:
        if isinstance(service, EmbeddedServer):
            return service.when_listening
    return None


def _twistd_options(twistd: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of twistd's own options that a worker has to have, too."""
    name = twistd.get("reactor")
    return (f"--reactor={name}",) if isinstance(name, str) and name else ()
