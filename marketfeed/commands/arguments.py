"""What a command's arguments may be, the one line that says what they may not be, and what to do when nobody reads.

A value that cannot be used raises `BadSetting`, as the daemon's own settings do: it names the option, repeats the
beginning of the value, and says what would be accepted.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from marketfeed.config.settings import BadSetting
from marketfeed.model.numbers import whole

__all__ = ["cannot_be_used", "note", "number", "settle_stdout", "whole_number"]

_SHOWN = 80
_DIGITS = 15  # reading more takes long, or cannot be done


def cannot_be_used(option: str, text: str, accepted: str) -> BadSetting:
    """The error for the value `text` of `option`."""
    return BadSetting(f"{option}: {text[:_SHOWN]!r} cannot be used; expected {accepted}")


def whole_number(option: str, text: str | None, least: int, most: int, accepted: str = "", *, default: int = 0) -> int:
    """The number that `text` spells, in digits only; `default` where it is None.

    `accepted`: what to say of the numbers that can be used, if not their bounds.
    """
    if text is None:
        return default
    found = whole(text, _DIGITS)
    if found is None or not least <= found <= most:
        raise cannot_be_used(option, text, accepted or f"a whole number from {least} to {most}")
    return found


def number(option: str, text: str, least: float, most: float, accepted: str = "") -> float:
    """The same of any number, as Python spells them."""
    try:
        found = float(text)
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise cannot_be_used(option, text, accepted or f"a number from {least:g} to {most:g}")
    return found


def note(command: str, line: str) -> None:
    """Say something on stderr, where nobody need read it."""
    with suppress(OSError):
        print(f"marketfeed {command}: {line}", file=sys.stderr, flush=True)


def settle_stdout() -> None:
    """Python flushes stdout at its end, and would complain of a reader who is gone."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
