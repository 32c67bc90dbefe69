"""What stands on the wire: frames, compression, and the spelling of requests, replies and events. No Twisted."""
