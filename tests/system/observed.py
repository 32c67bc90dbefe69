"""`twistd` with a window: `python -m tests.system.observed SOCKET [twistd's arguments]`.

It runs the same daemon as twistd does, and tells on the Unix socket SOCKET what cannot be seen from outside a process.
A line that it is sent is a question, and a line of JSON the answer:

    look        the timers that are pending, connections, clients, streams, questions that Redis has not answered,
                living objects by type, and blocks of memory
    disable     collect what only the collector of cycles can free, and let it do nothing more
    collect     the objects that only the collector can free, by type, and free them
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from twisted.application.service import MultiService, Service
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.scripts import twistd

from marketfeed.daemon import tap
from marketfeed.hub.hub import Hub
from marketfeed.redis.commands import CommandLink
from marketfeed.runtime.connections import Readers
from marketfeed.websocket.connections import UserManager


class Window(Service):
    """Answers the questions about the daemon whose tree of services it is added to."""

    def __init__(self, path: str, daemon: MultiService) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._path = path
        self._users = next(service for service in daemon if isinstance(service, UserManager))
        self._hub = next(service for service in daemon if isinstance(service, Hub))
        self.setServiceParent(daemon)

    def startService(self) -> None:
        Service.startService(self)
        UNIXServerEndpoint(self._reactor, self._path).listen(_Askers(self))

    def look(self) -> dict[str, Any]:
        calls = [call.func for call in self._reactor.getDelayedCalls()]
        open_files = {*self._reactor.getReaders(), *self._reactor.getWriters()}
        for readers in [each for each in open_files if isinstance(each, Readers)]:
            open_files.update(readers)
        objects = _all_objects()
        protocols = _types(getattr(file, "protocol", None) for file in open_files)
        return {
            "timers": sorted(getattr(call, "__qualname__", str(call)) for call in calls),
            "connections": protocols["ClientProtocol"],
            "clients": len(self._users),
            "streams": len(self._hub.streams),
            "asked": sum(len(each._waiting) for each in objects if isinstance(each, CommandLink)),
            "objects": _types(objects),
            "blocks": sys.getallocatedblocks(),
        }

    def disable(self) -> dict[str, Any]:
        gc.collect()
        gc.disable()
        return {}

    def collect(self) -> dict[str, Any]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.unfreeze()
        gc.collect()
        gc.set_debug(0)
        freed = _types(gc.garbage)
        gc.garbage.clear()
        return freed


def _all_objects() -> list[Any]:
    """Those too that the daemon's own collector looks at no more."""
    gc.unfreeze()
    objects = gc.get_objects()
    gc.freeze()
    return objects


def _types(things: Iterable[object]) -> Counter[str]:
    return Counter(type(thing).__name__ for thing in things)


class _Asker(LineOnlyReceiver):
    delimiter = b"\n"
    factory: _Askers

    def lineReceived(self, line: bytes) -> None:
        window = self.factory.window
        answer = {b"look": window.look, b"disable": window.disable, b"collect": window.collect}[line]()
        self.sendLine(msgspec.json.encode(answer))


class _Askers(Factory):
    noisy = False
    protocol = _Asker

    def __init__(self, window: Window) -> None:
        self.window = window


def main() -> None:
    path = sys.argv.pop(1)
    make_service = tap.makeService

    def make_observed(options: tap.Options) -> MultiService:
        daemon = make_service(options)
        Window(path, daemon)
        return daemon

    tap.makeService = make_observed
    twistd.run()


if __name__ == "__main__":
    main()
