"""One connection, from its handshake to its end, and the register of all of them."""
