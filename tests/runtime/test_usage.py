"""What a process takes, beside what prometheus-client says of it."""

from __future__ import annotations

import gc
import time

from prometheus_client import ProcessCollector

from marketfeed.runtime.file_limit import open_files
from marketfeed.runtime.usage import process_usage


def test_it_is_what_prometheus_client_says() -> None:
    said = {sample.name: sample.value for each in ProcessCollector(registry=None).collect() for sample in each.samples}
    usage = process_usage()
    assert usage.started == said["process_start_time_seconds"]
    assert abs(usage.virtual - said["process_virtual_memory_bytes"]) < 64 << 20
    assert abs(usage.resident - said["process_resident_memory_bytes"]) < 64 << 20
    assert said["process_cpu_seconds_total"] - 0.01 <= usage.cpu <= said["process_cpu_seconds_total"] + 60
    assert usage.started < time.time()


def test_open_files_are_counted() -> None:
    gc.collect()  # or it might close others meanwhile
    before = open_files()
    with open("/dev/null", "rb"), open("/dev/null", "rb"):
        after = open_files()
    assert before is None or after == before + 2
