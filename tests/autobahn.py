"""The testee of the Autobahn test suite, in a checkout:

    python -m tests.autobahn --port N [--no-throttle] [--tls CERTIFICATE KEY]

It listens on loopback, says where, and echoes until it is ended. The suite's fuzzing client is pointed at it from
outside, with all cases. With `--no-throttle` it reads as fast as a peer sends: the suite has cases of 131 MB in small
messages, which take minutes otherwise (docs/security.md#what-the-pace-does-to-an-honest-peer).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.task import Clock

from marketfeed.runtime.acceptor import quicken
from marketfeed.runtime.listener import server_endpoint
from tests.websocket.echo import EchoServer

__all__ = ["main"]

_MAX_MESSAGE = 16 << 20
"""Bytes: the largest message of the suite has as many."""
_QUEUE = 1 << 30
"""Bytes that may wait for a peer, who sends them all before it reads the first."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run until the process is told to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn", description="The testee of the suite.")
    parser.add_argument("--port", type=int, required=True, metavar="N", help="0: one that the system picks")
    parser.add_argument("--no-throttle", action="store_true", help="read as fast as a peer sends")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="by wss:, as the daemon does it")
    arguments = parser.parse_args(argv)
    from twisted.internet import reactor as running

    reactor: Any = running
    server = EchoServer(max_message=_MAX_MESSAGE, client_queue=_QUEUE, clock=cast(Clock, reactor))
    if arguments.no_throttle:
        server.unthrottle()
    description = f"tcp:{arguments.port}:interface=127.0.0.1"
    if arguments.tls:
        certificate, key = map(quoteStringArgument, arguments.tls)
        description = f"ssl:{arguments.port}:interface=127.0.0.1:certKey={certificate}:privateKey={key}"
    scheme = "wss" if arguments.tls else "ws"
    listening = server_endpoint(reactor, description).listen(server.factory)

    def listens(port: Any) -> None:
        quicken(port)
        print(f"{scheme}://127.0.0.1:{port.getHost().port}", flush=True)

    listening.addCallbacks(listens, lambda fault: (print(fault.getErrorMessage(), file=sys.stderr), reactor.stop()))
    reactor.run()


if __name__ == "__main__":
    main()
