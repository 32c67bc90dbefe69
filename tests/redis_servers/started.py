"""What is started as a `with` block is entered, and ended with it, also where it has started only in part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["Started"]


class Started(ABC):
    """Something of several parts."""

    @abstractmethod
    def start(self) -> None:
        """Start all, and wait until they are what they are to be."""

    @abstractmethod
    def close(self) -> None:
        """End whatever has been started."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
