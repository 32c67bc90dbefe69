"""The fixture of those tests that talk to a real server."""

from tests.system.conftest import harness

__all__ = ["harness"]
