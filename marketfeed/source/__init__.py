"""Where publications come from: Redis, and an engine that makes a market up."""

__all__: list[str] = []
