"""The admin port put together: what counts, what is kept of it, who may look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService

from marketfeed.api.admin import admin_listener
from marketfeed.api.lists import Lists
from marketfeed.api.metrics import Metrics, Parts
from marketfeed.api.pages import Pages
from marketfeed.api.samples import Samples
from marketfeed.api.status import Status
from marketfeed.api.viewers import LEAST_TOKEN, Viewers
from marketfeed.config.settings import changed
from marketfeed.daemon.redis_side import StartFault
from marketfeed.daemon.reload import Reload
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.listener import Listener, server_endpoint
from marketfeed.runtime.tls_files import shown

__all__ = ["AdminPort", "endpoint", "make_admin"]

_TOKEN = f"a file with a token of {LEAST_TOKEN} characters of ASCII or more"


class AdminPort(MultiService):
    """Where operators look: what is kept for them, and what listens for them."""

    def __init__(self, samples: Samples, listener: Listener) -> None:
        MultiService.__init__(self)
        self._listener = listener
        services: tuple[IService, ...] = (samples, listener)
        for service in services:
            service.setServiceParent(self)

    @property
    def port_number(self) -> int | None:
        """The port of TCP; None where it is none, or another program has it."""
        return self._listener.port_number


def make_admin(reactor: Any, reload: Reload, parts: Parts, kinds: StreamKinds, boot: str) -> AdminPort:
    """The port. `reload` has the settings; `boot`: what tells this process from others. Raises `StartFault`."""
    settings = reload.settings
    samples = Samples(parts)
    lists = Lists(reactor, parts.hub, parts.clients, kinds)
    status = Status(parts, samples, lists, boot, lambda: changed(reload.settings))
    token = b"" if settings.admin_token_file is None else _token(settings.admin_token_file)
    viewers = Viewers(reactor, settings.admin_host, token)
    pages = Pages(parts.health, Metrics(parts), status, lists)
    where = endpoint(reactor, "--admin", settings.admin)
    needed = settings.gives_admin
    return AdminPort(samples, admin_listener(reactor, where, settings.admin, pages, viewers, is_needed=needed))


def endpoint(reactor: Any, option: str, description: str) -> Any:
    """Where to listen, as this option says it. Raises `StartFault`."""
    try:
        return server_endpoint(reactor, description)
    except ValueError as fault:
        raise StartFault(f"{option}: expected a number or a Twisted endpoint description: {fault}") from None


def _token(path: str) -> bytes:
    try:
        token = Path(path).read_bytes().strip()
    except (OSError, ValueError) as fault:
        cause = getattr(fault, "strerror", None) or "cannot be read"
        raise StartFault(f"--admin-token-file: {shown(path)}: {cause}; expected {_TOKEN}") from None
    if len(token) < LEAST_TOKEN or not token.isascii():
        raise StartFault(f"--admin-token-file: {shown(path)}: expected {_TOKEN}")
    return token
