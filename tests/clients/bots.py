"""Clients in processes of their own, each in the virtualenv that `make env-clients` has made for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs_runner import ROOT
from tests.system.harness import Harness

__all__ = ["REQUIREMENTS", "Bot", "needs", "package_of"]

REQUIREMENTS = Path(__file__).parent / "requirements"

_MODULES = {
    "binance-connector": r"binance\.(?:spot|websocket)",
    "python-binance": "binance",
    "ccxt": "ccxt",
    "unicorn-binance-websocket-api": "unicorn_binance_websocket_api",
}
_RUN = Path(__file__).parent / "drivers" / "run.py"


def _python(package: str) -> Path:
    return ROOT / "env" / "clients" / package / "bin" / "python"


def package_of(program: str) -> str | None:
    """The client that a program uses, where it uses any."""
    for package, module in _MODULES.items():
        if re.search(rf"^(?:import|from) {module}\b", program, re.MULTILINE):
            return package
    return None


def needs(package: str) -> pytest.MarkDecorator:
    """Skip where this client is not installed."""
    return pytest.mark.skipif(not _python(package).exists(), reason=f"{package} is not here: make env-clients")


class Bot:
    """A driver of `drivers/`, in the virtualenv of `package`. `port`: the daemon's; `options`: what it is to do."""

    def __init__(self, harness: Harness, package: str, driver: str, port: int, **options: object) -> None:
        command = [str(_python(package)), "-u", str(_RUN), driver, str(port), json.dumps(options)]
        # It knows nothing of this checkout, nor of proxies.
        self._process = harness.spawn(command, {"PYTHONPATH": "", "http_proxy": "", "all_proxy": "", "no_proxy": "*"})

    async def told(self, word: str) -> Any:
        """What the driver says behind this word, once it has said it."""
        return json.loads(await self.printed(f"^{re.escape(word)} (.*)$"))

    async def printed(self, pattern: str) -> str:
        """The first group of a pattern, in the first line that matches."""
        found = await self._process.expect(f"{pattern}|^over null$|^refused ")
        if found[1] is None:
            if found[0] != "over null":
                self._process.signal("KILL")
            await self._process.wait()
            raise AssertionError(f"no {pattern} in:\n" + "\n".join(self._process.lines.all))
        return found[1]

    async def ends(self) -> None:
        """It has done all, without a fault, and has asked nobody but the daemon."""
        status = await self._process.wait()
        said = self._process.lines.all
        assert status == 0, "\n".join(said)
        assert said[-1] == "over null"
        assert not [line for line in said if line.startswith(("refused ", "Traceback"))], "\n".join(said)
