"""The port on which clients arrive."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.protocols.haproxy import proxyEndpoint
from twisted.python.failure import Failure

from marketfeed.runtime.acceptor import quicken
from marketfeed.runtime.every_address import EveryAddress
from marketfeed.runtime.logs import Log
from marketfeed.runtime.tls import tls_endpoint

__all__ = ["BACKLOG", "CannotServe", "Listener", "server_endpoint"]

_PROXIED = "haproxy:"
BACKLOG = 4096
"""Connections that may wait to be accepted: a whole platform's, after a restart. The kernel may allow fewer."""
_UNSENT = 1048576
"""Bytes that the kernel takes for a client without sending them. It would take megabytes, which nobody could thin out
any more, and which cost it milliseconds to throw away when the client is given up."""
_LONGEST = 88  # characters of a message, which twistd cuts off a little later
_LONGEST_PORT = 36


class CannotServe(Exception):
    """The port cannot be had; the message is one short line."""


def server_endpoint(reactor: Any, port: str, opened: IStreamServerEndpoint | None = None) -> IStreamServerEndpoint:
    """`port`: a number, then all addresses, IPv6 too where there is any, or Twisted's description of an endpoint.

    `opened`: the sockets that are meant, where they are open already; then only what comes on them is as described.
    Raises ValueError for a description that cannot be read, or one of TLS whose files cannot be used.
    """
    if port.removeprefix(_PROXIED).startswith("ssl:"):
        is_proxied = port.startswith(_PROXIED)
        return tls_endpoint(reactor, port.removeprefix(_PROXIED), opened, is_proxied=is_proxied)
    if opened is not None:
        return proxyEndpoint(opened) if port.startswith(_PROXIED) else opened
    if not port.isdigit():
        try:
            endpoint: IStreamServerEndpoint = serverFromString(reactor, port)
        except Exception as error:
            if port.startswith("systemd:") and isinstance(error, LookupError):
                raise ValueError("systemd: it has opened no such socket for this process") from None
            raise ValueError(f"{error.__class__.__name__}: {str(error)[:80]}") from None
        return endpoint
    return EveryAddress(reactor, int(port), BACKLOG)


class Listener(Service):
    """Listens while it runs. `address` says where, as text, once it does.

    `option`: the one that says where; `name`: what the log calls the port. `is_needed`: where it cannot be had, the
    daemon does not start; otherwise it says so and goes on without.
    """

    log = Log()

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        factory: IProtocolFactory,
        description: str,
        *,
        option: str = "--port",
        name: str = "",
        is_needed: bool = True,
    ) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._description = description
        self._option = option
        self._name = name
        self._is_needed = is_needed
        self._port: IListeningPort | None = None
        self.address = ""

    def privilegedStartService(self) -> None:
        """Bind, while the process may still have a user's rights that it drops later. Raises `CannotServe`."""
        Service.privilegedStartService(self)
        faults: list[Failure] = []
        self._endpoint.listen(self._factory).addCallbacks(self._listening, faults.append)
        if faults:
            fault = _cannot(faults[0], self._description, self._option)
            if self._is_needed:
                raise fault
            self.log.warn("{name}: {fault}", name=self._name, fault=str(fault))

    def _listening(self, port: IListeningPort) -> None:
        self._port = port
        for each in getattr(port, "ports", (port,)):
            _limit_unsent(each)
            quicken(each)
        host = port.getHost()
        number = getattr(host, "port", None)
        self.address = f"port {number}" if number is not None else os.fsdecode(getattr(host, "name", str(host)))
        self.log.info("{what} on {address}", what=self._name or "listening", address=self.address)

    @property
    def certificate_expiry(self) -> float | None:
        """When the certificate ends that is shown now, in s since 1970; None: there is none."""
        return getattr(self._endpoint, "expires_at", None)

    @property
    def port_number(self) -> int | None:
        """The TCP port, if it is one."""
        return None if self._port is None else getattr(self._port.getHost(), "port", None)

    def stopService(self) -> Deferred[None] | None:
        Service.stopService(self)
        port, self._port = self._port, None
        return None if port is None else port.stopListening()


def _limit_unsent(port: Any) -> None:
    """What is accepted inherits the limit. A Unix socket has none, and not every system knows it."""
    try:
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    except (AttributeError, OSError):
        pass


def _cannot(failure: Failure, description: str, option: str) -> CannotServe:
    fault = failure.value
    cause = fault.socketError if isinstance(fault, CannotListenError) else fault
    number = getattr(cause, "errno", None)  # the lock of a Unix socket that is in use is a text
    if len(description) > _LONGEST_PORT:
        description = description[: _LONGEST_PORT - 1] + "…"  # or the paths of TLS would leave no room for the rest
    if number == errno.EADDRINUSE:
        of_make = " (make run PORT=8090)" if description.isdigit() else ""
        another = f"try another, as --port 8090{of_make}" if option == "--port" else f"{option} may name another"
        return CannotServe(f"port {description} is taken; {another}")
    if number == errno.EACCES:
        return CannotServe(f"port {description} needs more rights; try one from 1024 up")
    return CannotServe(f"cannot listen on {description}: {getattr(cause, 'strerror', None) or cause}"[:_LONGEST])
