"""What is looked at before the daemon starts, and at each reload: files, and what the machine has room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketfeed.access.keys import BadKey, KeyFiles, load_keys
from marketfeed.config.settings import Settings
from marketfeed.daemon.redis_side import StartFault, check_redis_files
from marketfeed.runtime.listener import server_endpoint
from marketfeed.runtime.logs import LogOutput, make_observer

__all__ = ["endpoint", "fitting", "keys_of", "log_output", "opened_endpoint", "read_files"]

_EXPECTED = "expected a number or a Twisted endpoint description"


def endpoint(reactor: Any, option: str, description: str, opened: Any = None) -> Any:
    """Where to listen, as this option says it; `opened`: the sockets, if they are open already. Raises `StartFault`."""
    try:
        return server_endpoint(reactor, description, opened)
    except ValueError as fault:
        raise StartFault(f"{option}: {_EXPECTED}: {fault}") from None


def opened_endpoint(opener: Any, option: str, description: str) -> Any:
    """The same, for who opens sockets that others listen on. Raises `StartFault`."""
    try:
        return opener.endpoint(description)
    except ValueError as fault:
        raise StartFault(f"{option}: {_EXPECTED}: {fault}") from None


def log_output(reactor: Any, twistd: Mapping[str, Any], settings: Settings) -> LogOutput | None:
    """Where the log goes; None: where an option of twistd's says."""
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    return make_observer(reactor, twistd, settings.log_format, settings.log_level)


def read_files(reactor: Any, settings: Settings) -> KeyFiles | None:
    """The keys for tokens, where there are any, once all other files are known to be of use. Raises `StartFault`."""
    check_redis_files(settings)
    if "ssl:" in settings.port:
        endpoint(reactor, "--port", settings.port)
    return None if settings.auth == "off" else keys_of(reactor, settings)


def keys_of(reactor: Any, settings: Settings) -> KeyFiles:
    """The keys for tokens. Raises `StartFault`."""
    option = "--auth-key"
    try:
        if settings.auth_key is not None:
            load_keys(settings.auth_key, None)  # by itself first, so that the line can name the option
        option = "--auth-jwks"
        return KeyFiles(settings.auth_key, settings.auth_jwks, reactor.seconds)
    except BadKey as fault:
        raise StartFault(f"{option}: {fault}") from None


def fitting(settings: Settings, notes: list[str], *, room: int, share: int = 1) -> int:
    """The number of clients that the limit on open files has room for, of one of so many processes. A default that is
    lowered worries nobody.
    """
    wanted = -(-settings.max_connections // share)
    if wanted > room and settings.gives_max_connections:
        notes.append(f"--max-connections is lowered from {wanted} to {room}: no more files may be open at once")
    return min(wanted, room)
