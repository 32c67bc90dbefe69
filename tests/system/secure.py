"""The daemon with TLS, for tests that hold with and without it.

Where the ordinary run of the tests has a part of them with TLS, `TLS=all` has all; `make faults` does.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority

__all__ = ["ALL", "Secure", "also_tls", "tls_in_full"]

ALL = os.environ.get("TLS") == "all"

also_tls = pytest.mark.parametrize("tls", [False, True])
"""A test that is run both ways, always."""
tls_in_full = pytest.mark.parametrize("tls", [False, True] if ALL else [False])
"""A test that is run both ways with `TLS=all`."""


class Secure:
    """An authority of its own, and a server's certificate in `directory`, for `localhost` and 127.0.0.1.

    `files`: the certificate and its key; `options`: of the daemon; `client`: how clients of Twisted connect; `trusted`:
    the authority's file.
    """

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        certificate, key = self.files = authority.issue("localhost", "127.0.0.1").write(directory)
        self.options = (
            "--port",
            f"ssl:0:interface=127.0.0.1:backlog=4096:privateKey={key}:certKey={certificate}",
        )
        self.client: Any = authority.client_options()
        self.trusted = authority.write(directory / "authority.pem")

    def context(self) -> ssl.SSLContext:
        """For clients that use the standard library."""
        return ssl.create_default_context(cafile=str(self.trusted))
