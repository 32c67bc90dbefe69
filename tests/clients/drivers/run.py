"""Runs a driver: `run.py DRIVER PORT OPTIONS` in the virtualenv of a client, where nothing of this project is.

A driver is a module beside this one with a function `drive(address, options, tell)`, which may be a coroutine. It has
the daemon's address, what the test wants, and `tell(word, value)`: a line with the word and JSON, for the test. No word
is told twice; the last is `over`. No address but the daemon's can be reached, or asked for, from its import on.
"""

import asyncio
import importlib
import inspect
import json
import sys

HOST = "127.0.0.1"


def tell(word, value=None):
    print(word, json.dumps(value, default=str), flush=True)


def refuse_all_but(port):
    def watch(event, arguments):
        if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            target = arguments[0]
            allowed = target in (HOST, HOST.encode(), None)
        elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            target = arguments[1]
            allowed = not isinstance(target, tuple) or target[:2] == (HOST, port)
        else:
            return
        if not allowed:
            tell("refused", [event, target])
            raise PermissionError(f"{event}: {target}")

    sys.addaudithook(watch)


def main(driver, port, options):
    refuse_all_but(int(port))
    drive = importlib.import_module(driver).drive
    driven = drive(f"{HOST}:{port}", json.loads(options), tell)
    if inspect.isawaitable(driven):
        asyncio.run(driven)


try:
    main(*sys.argv[1:])
finally:
    tell("over")
