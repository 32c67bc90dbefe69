"""What twistd runs: the options, and the tree of services that makes up the daemon.

1. Everything that can be found wrong before the daemon goes to the background ends the start with one line.
2. The process lives on a clock that nobody sets: timers, paces and limits go on when the time of day is put back.
   Wall time is for what is written, and for what is compared with what others wrote.
3. Services start in the order in which they stand in `makeService`, and stop one after the other: clients first,
   so that they are sent away while everything still works.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.python import usage
from twisted.scripts._twistd_unix import UnixApplicationRunner

from marketfeed import __version__
from marketfeed.config.options import OPTIONS, Option
from marketfeed.config.settings import DEFAULTS, BadSetting, Settings, load

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """The daemon's options; `settings` holds the result, and `load_again` reads the file of `--config` once more.

    `arguments`: as they were given.
    """

    longdesc = (
        "Brings a trading platform's live market data from Redis to every browser, phone and bot, over WebSocket. "
        "Every option can also be given in the environment or in a TOML file: flags beat the environment, which "
        "beats the file."
    )
    optParameters = [
        [option.flag, None, None, option.help] for option in OPTIONS if not (option.is_switch or option.is_list)
    ]
    optFlags = [[option.flag, None, option.help] for option in OPTIONS if option.is_switch]
    settings: Settings
    load_again: Callable[[], Settings]

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.lists: dict[str, list[str]] = {}
        self.arguments: tuple[str, ...] = ()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        self.arguments = tuple(options or ())
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:  # twistd would show all of the usage
            fault = str(error).rstrip(".")
            raise SystemExit(f"marketfeed: {fault}; twistd marketfeed --help lists the options") from None

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"marketfeed {__version__}\n")
        raise SystemExit

    def postOptions(self) -> None:
        given = {option.field: _given(option, self[option.flag]) for option in OPTIONS if not option.is_list}
        flags = {field: text for field, text in given.items() if text is not None}
        flags |= {field: ",".join(texts) for field, texts in self.lists.items()}
        self.load_again = partial(load, flags, dict(os.environ))
        try:
            self.settings = self.load_again()
        except BadSetting as error:
            raise SystemExit(f"marketfeed: {error}") from None

    def getUsage(self, width: int | None = None) -> str:
        lines = ["Usage: twistd [twistd's options] marketfeed [options]", "", self.longdesc, ""]
        for group in dict.fromkeys(option.group for option in OPTIONS):
            lines.append(f"{group}:")
            lines += [_usage(option) for option in OPTIONS if option.group == group]
            lines.append("")
        return "\n".join([*lines, "  --help, --version", ""])


def _collector(option: Option) -> Callable[[Options, str], None]:
    """twistd's options keep the last value of several; a method of this name gets every one."""

    def collect(options: Options, value: str) -> None:
        options.lists.setdefault(option.field, []).append(value)

    collect.__doc__ = option.help
    return collect


for _option in OPTIONS:
    if _option.is_list:
        setattr(Options, f"opt_{_option.field}", _collector(_option))


def _given(option: Option, value: str | int | None) -> str | None:
    """What stood on the command line; None where the option did not. A switch has 0 then, any other None."""
    if option.is_switch:
        return "true" if value else None
    return None if value is None else str(value)


def _usage(option: Option) -> str:
    name = f"--{option.flag}" + ("" if option.is_switch else "=")
    shown = "" if option.is_switch else _shown(DEFAULTS.get(option.field))
    return f"  {name:{_WIDTH}} {option.help}{shown}\n  {'':{_WIDTH}} environment: {option.environment}"


_WIDTH = max(len(f"--{option.flag}=") for option in OPTIONS)


def _shown(default: Any) -> str:
    """A default, where there is one, as it could be given."""
    if isinstance(default, bool):
        return " [on]" if default else " [off]"
    if isinstance(default, float):
        return f" [{default:g}]"
    return "" if default in (None, "", (), {}) else f" [{default}]"


def makeService(options: Options) -> MultiService:
    """The daemon as a tree of services: of its only process, of the parent of workers, or of one of these."""
    from twisted.internet import reactor as installed

    from marketfeed.daemon.build import build
    from marketfeed.daemon.redis_side import StartFault
    from marketfeed.daemon.workers.parent import build_parent
    from marketfeed.daemon.workers.worker import take_place

    reactor: Any = installed
    runner: Any = UnixApplicationRunner
    if not reactor.getDelayedCalls():  # timers that exist count by the clock that they were made with
        reactor.seconds = time.monotonic
    # What ends the start in the background is told on the terminal by twistd, as `b'OSError: …'`: tell it as it is.
    runner._waitForStart = _wait_for_start
    settings = options.settings
    twistd: Mapping[str, Any] = options.parent or {}
    place = take_place(reactor, os.environ, settings.log_level)
    try:
        if place is None and settings.workers is not None:
            return build_parent(reactor, settings, twistd, options.load_again, options.arguments)
        return build(reactor, settings, twistd, options.load_again, place)
    except StartFault as fault:
        raise SystemExit(f"marketfeed: {fault}") from None


def _wait_for_start(_: object, pipe: int) -> int:
    """The exit status of the process that was started, once the one in the background has said how it went."""
    told = os.read(pipe, 100)
    if told == b"0":
        return 0
    fault = told[2:].decode(errors="replace")
    line = fault.removeprefix("OSError: ")  # ours, and whole
    if line == fault:
        line = f"{fault or 'it has ended'}; the log says more"
    if sys.__stderr__ is not None:
        sys.__stderr__.write(f"marketfeed: {line}\n")
    return 1
