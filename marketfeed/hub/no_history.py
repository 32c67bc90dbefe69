"""The history of a stream that has no offsets, and of which nothing is kept."""

from __future__ import annotations

from marketfeed.hub.history import History, Note

__all__ = ["NoHistory"]


class NoHistory(History):
    """Only the newest publication ever matters."""

    __slots__ = ()

    has_offsets = False

    @property
    def latest(self) -> None:
        return None

    @property
    def has_begun(self) -> bool:
        return False

    @property
    def newest_at(self) -> int:
        return 0

    @property
    def newest_place(self) -> tuple[int, int, int | None]:
        return 0, 0, None

    def number(self, now: float, seeded: int | None = None) -> int:
        return 0

    def _number_before(self, at: int) -> None:
        return None

    def _note(self, at: int) -> Note:
        return Note(0, 0)

    def add(self, data: bytes, now: float, offset: str | None = None) -> None: ...

    def confirm(self, after: str | None) -> bool:
        return False

    def fail(self, offset: str | None) -> None: ...

    def count_from(self, offset: str) -> None:
        return None

    def _behind(self, offset: str) -> None:
        return None

    def _entries(self, at: int) -> list[tuple[str, bytes]]:
        return []
