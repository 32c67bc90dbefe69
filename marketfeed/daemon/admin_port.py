"""The admin port put together: what counts, what is kept of it, who may look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.service import IService, MultiService

from marketfeed.api.admin import admin_listener
from marketfeed.api.candles import CandleHealth
from marketfeed.api.health import Health
from marketfeed.api.lists import Lists
from marketfeed.api.metrics import Metrics, Parts
from marketfeed.api.pages import Pages
from marketfeed.api.probes import Probes
from marketfeed.api.samples import Samples
from marketfeed.api.status import Status
from marketfeed.api.viewers import LEAST_TOKEN, Viewers
from marketfeed.config.settings import Settings
from marketfeed.daemon.checks import endpoint
from marketfeed.daemon.redis_side import StartFault
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.tls_files import shown

__all__ = ["AdminPort", "Views", "admin_port", "make_views"]

_TOKEN = f"a file with a token of {LEAST_TOKEN} characters of ASCII or more"


class AdminPort(MultiService):
    """Where operators look: what is kept for them, and what listens for them."""

    def __init__(self, listener: Listener, *kept: IService) -> None:
        MultiService.__init__(self)
        self._listener = listener
        for service in (*kept, listener):
            service.setServiceParent(self)

    @property
    def port_number(self) -> int | None:
        """The port of TCP; None where it is none, or another program has it."""
        return self._listener.port_number


class Views(msgspec.Struct, frozen=True):
    """What there is to see of one process."""

    health: Health
    metrics: Metrics
    samples: Samples
    lists: Lists
    status: Status
    candles: CandleHealth | None

    @property
    def pages(self) -> Pages:
        """All of it, by path."""
        return Pages(self.health, self.metrics, self.status, self.lists, self.candles)


def make_views(
    reactor: Any,
    parts: Parts,
    kinds: StreamKinds,
    boot: str,
    options: Callable[[], Mapping[str, str]],
    *,
    number: int = 0,
    first_sample: int = 0,
) -> Views:
    """Of this process. `boot`: what tells it from others; `options`, `number`: see `Status`; `first_sample`: the number
    that its samples begin behind.
    """
    samples = Samples(parts, seq=first_sample)
    lists = Lists(reactor, parts.hub, parts.clients, kinds)
    status = Status(parts, samples, lists, boot, options, number)
    candles = None if parts.candles is None else CandleHealth(parts.candles)
    return Views(parts.health, Metrics(parts), samples, lists, status, candles)


def admin_port(reactor: Any, settings: Settings, pages: Probes, *kept: IService) -> AdminPort:
    """The port. `kept`: services that `pages` are made from. Raises `StartFault`."""
    token = b"" if settings.admin_token_file is None else _token(settings.admin_token_file)
    viewers = Viewers(reactor, settings.admin_host, token)
    where = endpoint(reactor, "--admin", settings.admin)
    needed = settings.gives_admin
    return AdminPort(admin_listener(reactor, where, settings.admin, pages, viewers, is_needed=needed), *kept)


def _token(path: str) -> bytes:
    try:
        token = Path(path).read_bytes().strip()
    except (OSError, ValueError) as fault:
        cause = getattr(fault, "strerror", None) or "cannot be read"
        raise StartFault(f"--admin-token-file: {shown(path)}: {cause}; expected {_TOKEN}") from None
    if len(token) < LEAST_TOKEN or not token.isascii():
        raise StartFault(f"--admin-token-file: {shown(path)}: expected {_TOKEN}")
    return token
