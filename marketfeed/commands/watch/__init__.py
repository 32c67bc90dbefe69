"""`marketfeed watch`: what is published, in a terminal."""

__all__: list[str] = []
