"""`marketfeed record` and `marketfeed replay`: publications into files, and back into Redis."""
