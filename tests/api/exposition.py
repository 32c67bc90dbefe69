"""What an admin port says to Prometheus, read by Prometheus' own library and checked by its own program."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["exposed", "promtool_has_nothing_to_say"]


def exposed(text: bytes) -> dict[str, tuple[str, set[str]]]:
    """Each metric with its type and its labels, but for those of every process."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        if not family.name.startswith("process_"):
            name = family.name + "_total" * (family.type == "counter")
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = (family.type, labels - {"le"} if family.type == "histogram" else labels)
    return found


def promtool_has_nothing_to_say(text: bytes) -> None:
    """Skips the test where it is not installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
