"""What the log says once everything runs: what this daemon is, and what can be done with it."""

from __future__ import annotations

import os
import platform
import ssl
import sys
from importlib.metadata import version
from typing import Any, Protocol

from twisted.application.service import Service

from marketfeed import __version__
from marketfeed.config.settings import Settings
from marketfeed.hub.publishing import IS_COMPILED
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.logs import Log

__all__ = ["Report"]


class Listening(Protocol):
    """What listens on a port of TCP, or did not get it: None."""

    @property
    def port_number(self) -> int | None: ...


class Report(Service):
    """The last service to start. `notes`: what is to be said besides the settings' own warnings; `admin`: the admin
    port, if there is one.
    """

    log = Log()

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        listener: Listener,
        max_connections: int,
        notes: list[str],
        admin: Listening | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._listener = listener
        self._max_connections = max_connections
        self._notes = notes
        self._admin = admin

    def startService(self) -> None:
        Service.startService(self)
        self._reactor.callWhenRunning(self._report)

    def _report(self) -> None:
        settings = self._settings
        for note in (*settings.warnings, *self._notes):
            self.log.warn("{note}", note=note)
        self.log.info(
            "marketfeed {version} ({compiled}), Python {python}, Twisted {twisted}, Autobahn {autobahn}, "
            "OpenSSL {openssl}: up to {max_connections} clients on {address}, market data from {redis}",
            version=__version__,
            compiled="compiled" if IS_COMPILED else "not compiled",
            python=platform.python_version(),
            twisted=version("Twisted"),
            autobahn=version("autobahn"),
            openssl=ssl.OPENSSL_VERSION.split()[1],
            max_connections=self._max_connections,
            address=self._listener.address,
            redis=settings.redis,
        )
        port = self._listener.port_number
        if settings.demo and port is not None:
            admin = None if self._admin is None else self._admin.port_number
            command = os.path.join(os.path.dirname(sys.argv[0]), "marketfeed")
            url = f"ws://localhost:{port}"
            self.log.info(
                "A simulated market is open: http://localhost:{port}/\n"
                "In another terminal:\n"
                "  {command} watch {url} trade@TATA_INR ticker@TATA_INR depth@TATA_INR\n"
                "or in a browser's console, on the page http://localhost:{port}/healthz:\n"
                "  new WebSocket('{url}/stream?streams=trade@TATA_INR').onmessage = m => console.log(m.data)\n"
                "{status}Ctrl-C ends it.",
                command=command,
                url=url,
                port=port,
                status="" if admin is None else f"How it is doing: http://localhost:{admin}/\n",
            )
