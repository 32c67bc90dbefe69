"""The file of the token for the admin port."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketfeed.daemon.admin_port import _token
from marketfeed.daemon.redis_side import StartFault

EXPECTED = "expected a file with a token of 16 characters of ASCII or more"


def test_a_token_may_end_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"0123456789abcdef\n")
    assert _token(str(path)) == b"0123456789abcdef"


@pytest.mark.parametrize("content", [b"", b"0123456789abcde\n", "0123456789abcdeé".encode()])
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(StartFault, match=f"^--admin-token-file: {path}: {EXPECTED}$"):
        _token(str(path))


@pytest.mark.parametrize(
    ("name", "fault"), [("none", "No such file or directory"), ("", "Is a directory"), ("\0", "cannot be read")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, fault: str) -> None:
    with pytest.raises(StartFault, match=f"{fault}; {EXPECTED}$"):
        _token(str(tmp_path / name) if name != "\0" else name)
