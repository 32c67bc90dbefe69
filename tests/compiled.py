"""What a test cannot do where the modules are compiled that it is about (`make compiled`)."""

from __future__ import annotations

import pytest

from marketfeed.hub.publishing import IS_COMPILED

__all__ = ["replaces_methods"]

replaces_methods = pytest.mark.skipif(
    IS_COMPILED, reason="compiled modules call their own methods, whatever a test puts in their place"
)
