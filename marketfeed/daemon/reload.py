"""The settings read again while clients are connected, and what of them can change (docs/operations/signals.md#reload).

1. Everything is read and checked before anything changes: the file, and the keys and certificates that it names. What
   is wrong is one line, and then nothing changes.
2. What is for one connection holds for those that come from then on. Nobody is sent away.
3. What takes a restart is named at each reload, until the file says again what is so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import msgspec

from marketfeed.access.admission import Admission
from marketfeed.access.keys import KeyFiles
from marketfeed.access.tokens import TokenVerifier
from marketfeed.api.listing import Listing
from marketfeed.config.settings import BadSetting, Settings
from marketfeed.daemon.redis_side import StartFault, declared_markets
from marketfeed.hub.hub import Hub
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.kinds.kind import StreamKind
from marketfeed.model.markets import Markets
from marketfeed.model.streams import StreamKinds
from marketfeed.runtime.logs import Log, LogOutput
from marketfeed.runtime.memory import MemoryGuard
from marketfeed.session.limits import SessionLimits
from marketfeed.websocket.connection import ClientFactory
from marketfeed.websocket.connections import UserManager

__all__ = ["RELOADED", "Changeable", "Reload"]

_KEYS = ("auth_key", "auth_jwks", "auth_audience", "auth_issuer")
RELOADED = frozenset((
    "allowed_origin", "client_queue", "connect_rate", "drain_seconds", "log_level", "max_connections",
    "max_connections_per_address", "max_distinct_streams", "max_distinct_streams_per_address", "max_message",
    "max_streams", "memory_limit", "request_burst", "request_rate", "rest_rate", *_KEYS,
))  # fmt: skip
"""The options that can change without a restart."""
_DERIVED = frozenset((
    "beaten", "gives_admin", "gives_max_connections", "kinds", "markets", "rest_spares_local", "spares_local",
    "warnings",
))  # fmt: skip
"""What is no option, or is looked at by itself."""
_REDIS = "redis_url, redis_host or redis_port"


class Changeable(msgspec.Struct, frozen=True):
    """What new settings are for. `output`: None where twistd has been given another log."""

    users: UserManager
    clients: ClientFactory
    admission: Admission
    verifier: TokenVerifier | None
    hub: Hub
    kinds: StreamKinds
    listing: Listing
    memory: MemoryGuard
    output: LogOutput | None


class Reload:
    """Call it for each SIGHUP. `settings`: those that hold; `load`: reads them again; `now`: s since 1970.

    `read_files`: reads what other files hold, and returns the keys; raises `StartFault`. `fit`: how many clients may
    come, of those that are wanted; it notes what is to be said about that.
    """

    log = Log()

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        read_files: Callable[[Settings], KeyFiles | None],
        fit: Callable[[Settings, list[str]], int],
        parts: Changeable,
        now: Callable[[], float],
    ) -> None:
        self.settings = settings
        """What holds now."""
        self._load = load
        self._read_files = read_files
        self._fit = fit
        self._parts = parts
        self._now = now
        self._directory = os.getcwd()  # twistd may change it, and what the file names counts from here
        self._was_beaten = settings.beaten
        self.succeeded = True
        """Whether the last one did, or there was none."""
        self.last = now()
        """When it was, in s since 1970; before the first, the start."""

    def __call__(self) -> None:
        self.last = self._now()
        if self._parts.output is not None:
            self._parts.output.reopen()
        try:
            with contextlib.chdir(self._directory):
                new = self._load()
                settings, pinned = self._mixed(new)
                keys = self._read_files(settings)
        except (BadSetting, StartFault, OSError) as fault:
            self.succeeded = False
            self.log.error("nothing is reloaded: {fault}", fault=str(fault))
            return
        self.succeeded = True
        changed = self._apply(settings, keys)
        if changed:
            self.log.info("reloaded: {changed}", changed=", ".join(changed))
        else:
            self.log.info("reloaded: no option has changed")
        if pinned:
            self.log.warn("it takes a restart to change {pinned}", pinned=", ".join(pinned))
        for beaten in sorted(set(new.beaten) - set(self._was_beaten)):
            line = "{field} of the file is not used: {source} says otherwise, until a restart"
            self.log.warn(line, field=beaten.field, source=beaten.source)
        self._was_beaten = new.beaten

    def _mixed(self, new: Settings) -> tuple[Settings, list[str]]:
        """What will hold, and the names of what would take a restart."""
        old = self.settings
        differs = {field for field in Settings.__struct_fields__ if getattr(new, field) != getattr(old, field)}
        takes = differs & RELOADED
        if "auth" in differs:
            takes.difference_update(_KEYS)
        pinned = sorted(differs - takes - _DERIVED)
        kinds, of_kinds = _mixed_kinds(old.kinds, new.kinds)
        as_they_are = ("markets", "spares_local", "rest_spares_local", "gives_max_connections")
        derived = {"kinds": kinds, **{field: getattr(new, field) for field in as_they_are}}
        settings = msgspec.structs.replace(old, **{field: getattr(new, field) for field in takes}, **derived)
        return settings, [_REDIS if field == "redis" else field for field in pinned] + of_kinds

    def _apply(self, new: Settings, keys: KeyFiles | None) -> list[str]:
        """Let these settings hold; returns the names of what is different now. Never raises."""
        old, self.settings = self.settings, new
        parts = self._parts

        def differs(*fields: str) -> bool:
            return any(getattr(old, field) != getattr(new, field) for field in fields)

        parts.users.drain_seconds = 0.0 if new.demo else new.drain_seconds
        parts.clients.limit(msgspec.convert(new, SessionLimits, from_attributes=True), new.max_message)
        parts.admission.origins.allow(new.allowed_origin)
        parts.admission.counts.limit = new.max_connections_per_address
        if differs("max_connections"):
            notes: list[str] = []
            parts.users.max_connections = self._fit(new, notes)
            for note in notes:
                self.log.warn("{note}", note=note)
        if differs("connect_rate", "spares_local"):
            proxies = parts.admission.proxies
            parts.admission.rate.permit(new.connect_rate, proxies if new.spares_local else None)
        if differs("rest_rate", "rest_spares_local"):
            proxies = parts.admission.proxies
            parts.admission.rest.permit(new.rest_rate, proxies if new.rest_spares_local else None)
        if parts.admission.shares is not None:
            parts.admission.shares.grant(new.max_distinct_streams_per_address)
        parts.hub.allow_streams(new.max_distinct_streams)
        if differs("memory_limit"):
            parts.memory.renew(new.memory_limit)
        if parts.verifier is not None and keys is not None:
            parts.verifier.renew(keys.current, audience=new.auth_audience, issuer=new.auth_issuer)
        if parts.output is not None:
            parts.output.set_level(new.log_level)
        added = [kind for kind in new.kinds if kind not in old.kinds]
        for kind in added:
            parts.kinds.add(kind)
        if differs("markets"):
            parts.listing.declared = markets = Markets(declared_markets(new))
            parts.kinds.aliases = markets.aliases
        of_file = [f"streams.{kind.name}" for kind in added] + ["markets"] * differs("markets")
        return sorted(filter(differs, RELOADED)) + of_file


def _mixed_kinds(old: tuple[StreamKind, ...], new: tuple[StreamKind, ...]) -> tuple[tuple[StreamKind, ...], list[str]]:
    """The declared kinds that will be there, and the names of what would take a restart."""
    by_name = {kind.name: kind for kind in old}
    declared = {kind.name: kind for kind in new}
    added = [kind for name, kind in declared.items() if name not in by_name and not _is_built_in(kind)]
    pinned = [name for name, kind in by_name.items() if declared.get(name) != kind]
    pinned += [name for name, kind in declared.items() if name not in by_name and _is_built_in(kind)]
    return (*old, *added), [f"streams.{name}" for name in pinned]


def _is_built_in(kind: StreamKind) -> bool:
    return any(kind.name == each.name for each in BUILT_IN)
