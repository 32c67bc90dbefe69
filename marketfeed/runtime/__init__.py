"""The process: its port, memory, files, garbage and logs."""

__all__: list[str] = []
