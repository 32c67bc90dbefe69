"""Clients in processes of their own, each in the virtualenv that `make env-clients` has made for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs_runner import ROOT
from tests.system.harness import DaemonProcess, Harness

__all__ = ["Bot", "needs"]

_RUN = Path(__file__).parent / "drivers" / "run.py"


def _python(package: str) -> Path:
    return ROOT / "env" / "clients" / package / "bin" / "python"


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where this client is not installed."""
    return pytest.mark.skipif(not _python(package).exists(), reason=f"{package} is not here: make env-clients")


class Bot:
    """A driver of `drivers/`, in the virtualenv of `package`, connected to `daemon`. `options` are for the driver."""

    def __init__(self, harness: Harness, package: str, driver: str, daemon: DaemonProcess, **options: object) -> None:
        command = [str(_python(package)), str(_RUN), driver, str(daemon.port), json.dumps(options)]
        # It knows nothing of this checkout, nor of proxies.
        self._process = harness.spawn(command, {"PYTHONPATH": "", "http_proxy": "", "all_proxy": "", "no_proxy": "*"})

    async def told(self, word: str) -> Any:
        """What the driver says behind this word, once it has said it."""
        found = await self._process.expect(rf"^(?:{word} (.*)|over null|refused .*)$")
        if found[1] is None:
            await self._process.wait()
            raise AssertionError(f"{word} is never told:\n" + "\n".join(self._process.lines.all))
        return json.loads(found[1])

    async def ends(self) -> None:
        """It has done all, without a fault, and has asked nobody but the daemon."""
        status = await self._process.wait()
        said = self._process.lines.all
        assert status == 0, "\n".join(said)
        assert said[-1] == "over null"
        assert not [line for line in said if line.startswith(("refused ", "Traceback"))], "\n".join(said)
