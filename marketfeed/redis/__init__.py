"""Everything that speaks to Redis."""

__all__: list[str] = []
