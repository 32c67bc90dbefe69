"""Gzip in members, each of them whole by itself (RFC 1952, section 2.2). Pure.

1. What is flushed is a member, so that a file which ends behind one is whole: any gzip reads all of it.
2. A file that ends elsewhere is read up to there, and then that is said.
3. No chunk is larger than `_CHUNK`, however far the compressed bytes expand.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

__all__ = ["CutOff", "Damaged", "GzipMember", "unpacked"]

_MAGIC = b"\x1f\x8b"
_GZIP = 31  # zlib's wbits: a window of 32 KiB, in gzip's envelope
_LEVEL = 6
_CHUNK = 1 << 18


class CutOff(Exception):
    """The bytes end too early. The message says of what."""


class Damaged(ValueError):
    """The bytes cannot be read any further; the message says why."""


class GzipMember:
    """A member that is being written."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._parts: list[bytes] = []
        self.size = 0
        """Bytes that it holds, before compression."""

    def write(self, data: bytes) -> None:
        self.size += len(data)
        packed = self._compressor.compress(data)
        if packed:
            self._parts.append(packed)

    def finish(self) -> bytes:
        """All of the member's bytes. Nothing can be written to it any more."""
        return b"".join((*self._parts, self._compressor.flush()))


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a file, decompressed if they are gzip. Raises `CutOff` behind the last of them, and `Damaged`."""
    chunks = iter(chunks)
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= len(_MAGIC):
            break
    whole = chain((head,), chunks)
    return _members(whole) if head and head[:2] == _MAGIC[: len(head)] else whole


def _members(chunks: Iterable[bytes]) -> Iterator[bytes]:
    decompressor = None
    for chunk in chunks:
        while chunk:
            if decompressor is None:
                chunk = chunk.lstrip(b"\0")  # a file system may add them to a file when the machine goes down
                if not chunk:
                    break
                decompressor = zlib.decompressobj(_GZIP)
            data = _expand(decompressor, chunk)
            if data:
                yield data
            chunk = decompressor.unconsumed_tail
            if decompressor.eof:
                chunk, decompressor = decompressor.unused_data, None
    while decompressor is not None and not decompressor.eof:
        data = _expand(decompressor, b"")
        if not data and not decompressor.eof:
            raise CutOff("the file ends in the middle of its compressed bytes")
        yield data


def _expand(decompressor: zlib._Decompress, data: bytes) -> bytes:
    try:
        return decompressor.decompress(data, _CHUNK)
    except zlib.error as error:
        raise Damaged(f"the compressed bytes are damaged: {error}") from None
