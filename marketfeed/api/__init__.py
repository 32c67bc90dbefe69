"""What plain requests get."""

__all__: list[str] = []
