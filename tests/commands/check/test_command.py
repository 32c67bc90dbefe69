"""`marketfeed check`: its options, and recordings. Real engines: `tests/system/test_check.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marketfeed.commands import main
from marketfeed.commands.recording.format import Begin, End, Gap, Publication, Record, write_record

NOW = 1_790_000_000_000_000


def trade(number: int, stream: str = "trade@A_B") -> Publication:
    market = stream.partition("@")[2]
    data = {"e": "trade", "t": number, "m": True, "p": "1", "q": "1", "s": market, "T": NOW // 1000}
    return Publication(NOW + number * 1_000_000, stream.encode(), json.dumps(data).encode())


def recording(path: Path, *records: Record) -> str:
    path.write_bytes(
        b"".join(map(write_record, (Begin(NOW, 1, ("*",)), *records, End(NOW + 20_000_000, len(records)))))
    )
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seconds", "0"], "--seconds: '0' cannot be used; expected a number from 0.1 to 86400"),
        (["--seconds", "soon"], "--seconds: 'soon' cannot be used"),
        (["trade"], "'trade' cannot be used; expected a stream such as trade@TATA_INR"),
        (["--redis-url", "embedded:"], "is a daemon's own server"),
        (["--redis-url", "redis-cluster://h:1"], "'*' cannot be used"),
        (["--recording", "/none.jsonl"], "/none.jsonl: No such file or directory"),
    ],
)
def test_what_cannot_be_used(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], no_variables: None
) -> None:
    """Is one line that names it, and status 2."""
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert told in err


def test_recordings(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], no_variables: None) -> None:
    """Several are one, over a gap ids do not jump, and only what is selected counts."""
    first = recording(tmp_path / "first", trade(1), trade(2), Gap(NOW, NOW, NOW + 1))
    second = recording(tmp_path / "second", trade(7), trade(8), trade(1, "trade@C_D"))
    assert main(["check", "--recording", first, "--recording", second, "--json", "*@A_B"]) == 0
    report = json.loads(capsysbinary.readouterr().out)
    assert report["source"] == f"{first}, {second}"
    assert (report["publications"], report["markets"], report["gaps"]) == (4, ["A_B"], 1)
    assert report["seconds"] == 20.0
    assert {each["verdict"] for each in report["features"] if each["kind"] == "trade"} == {"yes"}


def test_a_fault_in_a_recording(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], no_variables: None) -> None:
    """Is status 1, and a line of the report; nothing but that is on stdout."""
    path = recording(tmp_path / "bad", trade(1), trade(1))
    assert main(["check", "--recording", path]) == 1
    out = capsysbinary.readouterr().out.decode()
    assert " ".join(out.split()).startswith(f"{path}, 20 s: 2 publications on 1 stream kind ")
    assert "  1 x trade: t is the same as of the trade before: 1\n" in out
    assert "\x1b" not in out
