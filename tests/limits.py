"""What the parts of the daemon are told by the operator: as it is by default, but for what a test says."""

from __future__ import annotations

from typing import Any

import msgspec

from marketfeed.config.settings import Settings
from marketfeed.hub.hub import HubLimits
from marketfeed.session.limits import SessionLimits

__all__ = ["hub_limits", "session_limits"]


def hub_limits(**changes: Any) -> HubLimits:
    return msgspec.structs.replace(msgspec.convert(Settings(), HubLimits, from_attributes=True), **changes)


def session_limits(**changes: Any) -> SessionLimits:
    return msgspec.structs.replace(msgspec.convert(Settings(), SessionLimits, from_attributes=True), **changes)
