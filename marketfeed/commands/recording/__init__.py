"""`marketfeed record` and `marketfeed replay`: publications into files, and back into Redis."""

__all__: list[str] = []
