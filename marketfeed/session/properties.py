"""The properties of a connection (docs/protocol.md#requests): how it speaks, and what it wants of each stream.

1. They are values: setting one makes others. All clients who have set nothing share one for each dialect.
2. `offsets` has an effect on envelopes only, and `snapshot` on what is subscribed from then on.
3. On the paths that clients made for Binance use, `events` is set by those who know what they are: others may die of a
   message that they do not expect.
"""

from __future__ import annotations

from typing import Any

import msgspec

from marketfeed.session.requests import Property
from marketfeed.wire.dialects import Dialect, Shape
from marketfeed.wire.messages import ErrorCode, RequestError

__all__ = ["DEFAULTS", "Properties"]


class Properties(msgspec.Struct, frozen=True):
    """What a client has set; the dialect began as the one of its path."""

    dialect: Dialect
    offsets: bool = False
    snapshot: bool = False
    events: bool = False

    @property
    def shape(self) -> Shape:
        """How this client gets publications."""
        if self.dialect is Dialect.RAW:
            return Shape.DATA  # which has no place for an offset
        return Shape.OFFSET if self.offsets else Shape.ENVELOPE

    def get(self, name: Property) -> bool:
        """What GET_PROPERTY answers."""
        if name is Property.COMBINED:
            return self.dialect.enveloped
        value: bool = getattr(self, name.value)
        return value

    def changed(self, name: Property, value: Any) -> Properties:
        """These, with one of them set. Raises `RequestError` where it cannot be, or not to this value."""
        if name is Property.COMBINED and self.dialect is Dialect.HOUSE:
            raise RequestError(ErrorCode.PROPERTY_NAME, "the property combined cannot be set on this path")
        if not isinstance(value, bool):
            raise RequestError(ErrorCode.PROPERTY_VALUE, f"the property {name.value} must be true or false")
        if name is Property.COMBINED:
            return msgspec.structs.replace(self, dialect=Dialect.COMBINED if value else Dialect.RAW)
        return msgspec.structs.replace(self, **{name.value: value})


DEFAULTS = {dialect: Properties(dialect, events=dialect is Dialect.HOUSE) for dialect in Dialect}
"""Those of a client that has set nothing."""
