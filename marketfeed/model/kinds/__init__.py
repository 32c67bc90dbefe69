"""The kinds of streams, each described in one module."""

__all__: list[str] = []
