"""What a command's arguments may be, and what is said of the others."""

from __future__ import annotations

import pytest

from marketfeed.commands.arguments import number, whole_number
from marketfeed.config.settings import BadSetting


def test_whole_numbers() -> None:
    """Within their bounds; what is not given is the default, which need not be."""
    assert [whole_number("--n", text, 1, 20) for text in ("1", "007", "20")] == [1, 7, 20]
    assert whole_number("--n", None, 1, 20, default=0) == 0


@pytest.mark.parametrize("text", ["0", "21", "-1", "+1", "1.0", "1_0", " 1", "²", "٣", "", "x" * 1000, "1" * 5000])
def test_no_whole_numbers(text: str) -> None:
    """The option is named, of a long value only the beginning."""
    with pytest.raises(BadSetting) as caught:
        whole_number("--n", text, 1, 20)
    assert str(caught.value) == f"--n: {text[:80]!r} cannot be used; expected a whole number from 1 to 20"


def test_numbers() -> None:
    """Of any kind."""
    assert [number("--n", text, 0.5, 1e6) for text in ("0.5", "1e6", "7")] == [0.5, 1e6, 7.0]


@pytest.mark.parametrize("text", ["0.4", "1000001", "nan", "inf", "-inf", "x", ""])
def test_no_numbers(text: str) -> None:
    """What is accepted may have a name of its own."""
    with pytest.raises(BadSetting, match=f"^--n: '{text}' cannot be used; expected a number from 0.5 to 1e\\+06$"):
        number("--n", text, 0.5, 1e6)
    with pytest.raises(BadSetting, match=r"; expected some$"):
        number("--n", text, 0.5, 1e6, "some")
