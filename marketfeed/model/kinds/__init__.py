"""The kinds of streams, each described in one module."""
