"""The notebook, run as a program: it prints what the candles say, and leaves a picture."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest_twisted
from matplotlib.image import imread

from tests.examples.shown import EXAMPLES, commands, demo, run
from tests.system.harness import Harness


@pytest_twisted.ensureDeferred
async def test_it_draws_the_candles_of_three_hours(harness: Harness) -> None:
    daemon = await demo(harness)
    notebook = run(harness, daemon, f"env MPLBACKEND=agg {commands('A notebook')[-1]}")
    found = await notebook.expect(r"^TATA_INR: 180 minutes, last (\S+), on average (\S+),$")
    assert abs(Decimal(found[1]) / Decimal(found[2]) - 1) < Decimal("0.2")
    await notebook.expect(r"^\d+ trades, a minute moves by \d+\.\d{4}%$")
    assert await notebook.wait() == 0
    assert notebook.lines.all[-1] == "the picture is TATA_INR.png"
    picture = imread(harness.directory / "TATA_INR.png")
    assert picture.shape[:2] == (700, 1200)
    assert len({tuple(colour) for colour in picture.reshape(-1, picture.shape[2])}) > 5
    assert await daemon.stop() == 0


def test_it_has_cells() -> None:
    """Each begins with the line that editors look for, and is a program by itself."""
    cells = re.split(
        r"^# %%.*$", (EXAMPLES / "notebook" / "candles.py").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert len(cells) == 6
    for cell in cells:
        compile(cell, "cell", "exec")
