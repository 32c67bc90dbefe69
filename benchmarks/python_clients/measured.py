"""How a client is measured, in a process and a virtualenv of its own, where nothing of this project need be."""

import json
import time

__all__ = ["Measured"]


class Measured:
    """The time that this process has on the processor, on all its threads, from now on."""

    def __init__(self):
        self._begin = time.process_time()

    def tell(self):
        """Print it, in seconds."""
        print(json.dumps({"processor": time.process_time() - self._begin}), flush=True)  # noqa: T201
