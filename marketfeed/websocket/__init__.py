"""One connection, from its handshake to its end, and the register of all of them."""

__all__: list[str] = []
