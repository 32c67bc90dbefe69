"""What the daemon talks about: streams, publications, books, identities. Pure: no reactor, no sockets, no clock."""
