"""A command runs until a signal, or until something ends it; either way it stops in order."""

from __future__ import annotations

import signal

import pytest

from marketfeed.commands.running import end, run_until_ended
from tests.commands.reactor import ShortReactor


@pytest.mark.parametrize("ends_itself", [False, True])
def test_it_is_started_and_stopped_once(monkeypatch: pytest.MonkeyPatch, ends_itself: bool) -> None:
    """Also where a signal comes after its own end; a second one would be the end of the process."""
    reactor = ShortReactor(monkeypatch, 1)
    happened = []

    def start() -> None:
        happened.append("start")
        if ends_itself:
            end(reactor)

    async def stop() -> None:
        happened.append("stop")

    run_until_ended(reactor, start, stop)
    assert happened == ["start", "stop"]
    assert reactor.hasStopped
    assert reactor.handlers.keys() == {signal.SIGINT, signal.SIGTERM}
    assert reactor.handlers[signal.SIGTERM] is signal.SIG_DFL
