"""`python -m tests.system.patient [twistd's arguments]`: the same daemon, which lets clients catch up for longer.

How long it waits for a client is a matter of seconds, in which a test on a busy machine may not have its turn.
"""

from __future__ import annotations

from twisted.scripts import twistd

from marketfeed.redis import delivery

if __name__ == "__main__":
    delivery.HOLD_SECONDS = 120.0
    delivery.NO_PROGRESS = 5.0
    twistd.run()
