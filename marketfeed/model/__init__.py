"""What the daemon talks about: streams, publications, requests, replies. Pure: no reactor, no sockets, no clock."""
