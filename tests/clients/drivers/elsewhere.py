"""No client at all: it looks a name up, or connects, as it is told."""

import socket


def drive(address, options, tell):
    try:
        if "name" in options:
            socket.getaddrinfo(options["name"], 443)
        else:
            socket.create_connection(options["to"] or address.split(":"), timeout=60).close()
    except PermissionError:
        tell("swallowed")  # as libraries do
    else:
        tell("reached")
