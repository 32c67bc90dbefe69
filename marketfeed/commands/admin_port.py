"""The admin port of a command that runs until it is told to end: health and metrics, where it is asked for.

`--admin` and `--admin-host` mean what they mean for the daemon, but the daemon's variables and its file do not count:
they say where its own port is.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from marketfeed.config.settings import BadSetting, Settings, load

if TYPE_CHECKING:
    from marketfeed.api.probes import Probes
    from marketfeed.runtime.listener import Listener

__all__ = ["add_admin_options", "admin_settings", "listen"]


def add_admin_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    group = parser.add_argument_group("For operators")
    group.add_argument(
        "--admin",
        metavar="PORT",
        help="where health and metrics are: a number, or a Twisted endpoint description such as "
        "tcp:8082:interface=127.0.0.1 (default: off)",
    )
    group.add_argument(
        "--admin-host",
        metavar="HOST",
        action="append",
        help="a name under which that port may be asked, besides localhost and its address. May be given several times",
    )


def admin_settings(arguments: argparse.Namespace) -> Settings | None:
    """The settings that say where the port is; None: there is to be none. Raises `BadSetting`."""
    if arguments.admin_host and arguments.admin is None:
        raise BadSetting("--admin-host: expected together with --admin")
    given = {"admin": arguments.admin, "admin_host": arguments.admin_host and ",".join(arguments.admin_host)}
    settings = load({field: text for field, text in given.items() if text is not None}, {}, ())
    return settings if settings.gives_admin and settings.admin != "off" else None


def listen(reactor: Any, settings: Settings, probes: Probes) -> Listener:
    """A port that listens, until it is stopped. Raises `BadSetting`."""
    from marketfeed.api.admin import admin_listener
    from marketfeed.api.viewers import Viewers
    from marketfeed.runtime.listener import CannotServe, server_endpoint

    try:
        where = server_endpoint(reactor, settings.admin)
    except ValueError as fault:
        raise BadSetting(f"--admin: expected a number or a Twisted endpoint description: {fault}") from None
    port = admin_listener(reactor, where, settings.admin, probes, Viewers(reactor, settings.admin_host))
    try:
        port.privilegedStartService()
    except CannotServe as fault:
        raise BadSetting(f"--admin: {fault}") from None
    return port
