"""What `marketfeed check` says: the counts, the table of features with what is missing for each, the faults. Pure.

1. What was published is not trusted: nothing but printable characters is shown, and no more of a text than fits.
2. What is as it should be takes one line; what is not, says what is missing, what that costs, and shows an example.
3. The last line is the sum of it, for who reads no other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

import msgspec

from marketfeed.commands.check.examination import Examination, Fault, Finding
from marketfeed.model.kinds.columns import clean
from marketfeed.model.numbers import size

__all__ = ["COLOURS", "as_json", "lines", "status", "width"]

COLOURS = {
    "yes": "\x1b[32m",
    "partly": "\x1b[33m",
    "no": "\x1b[33m",
    "fault": "\x1b[31m",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
}
_END = "\x1b[0m"
_WIDE, _NARROW = 110, 60
_NAMED = 12
"""Markets that are named."""
_MARGIN = 11
"""Characters before what is said of a feature."""


def status(examination: Examination) -> int:
    """The exit status: 0 where all that was heard is good, 1 where something is wrong, or nothing was heard."""
    return 1 if examination.faults or not examination.publications else 0


def width() -> int:
    """Characters of a line."""
    return max(_NARROW, min(_WIDE, shutil.get_terminal_size((100, 24)).columns))


def as_json(examination: Examination, source: str, seconds: float) -> bytes:
    """The same for programs, as one line."""
    kinds = [
        {
            "kind": each.name,
            "note": each.note or None,
            "publications": each.publications,
            "bytes": each.bytes,
            "streams": len(each.markets),
            "dropped": each.dropped,
        }
        for each in examination.kinds.values()
    ]
    answer = {
        "status": status(examination),
        "source": source,
        "seconds": round(seconds, 3),
        "publications": examination.publications,
        "gaps": examination.gaps,
        "markets": examination.markets,
        "kinds": kinds,
        "features": [_finding_as_json(each) for each in examination.findings],
        "faults": [
            {"kind": each.kind, "fault": each.what, "count": each.count, "example": each.example}
            for each in examination.faults
        ],
        "other": {"publications": examination.odd, "example": examination.odd_example or None},
    }
    return msgspec.json.encode(answer)


def _finding_as_json(finding: Finding) -> dict[str, Any]:
    feature = finding.feature
    return {
        "feature": feature.key,
        "kind": feature.kind,
        "verdict": finding.verdict,
        "good": finding.good,
        "of": finding.of,
        "what": finding.what or None,
        "example": finding.example,
    }


def lines(examination: Examination, source: str, seconds: float, *, columns: int, colour: bool) -> Iterator[str]:
    """The report for people, in lines of `columns` characters."""
    report = _Report(columns, colour=colour)
    yield from report.counts(examination, source, seconds)
    if examination.publications:
        yield from report.features(examination)
    if examination.faults:
        yield from report.faults(examination.faults)
    yield ""
    yield from report.sum(examination)


class _Report:
    def __init__(self, columns: int, *, colour: bool) -> None:
        self._columns = columns
        self._colour = colour

    def counts(self, examination: Examination, source: str, seconds: float) -> Iterator[str]:
        streams = sum(len(each.markets) for each in examination.kinds.values())
        heard = f"{_many(examination.publications, 'publication')} on {_many(streams, 'stream')}"
        yield from self._wrapped(f"{source}, {seconds:.0f} s: {heard}", 0, "bold")
        if examination.kinds:
            yield ""
            yield from self._kinds(examination, max(seconds, 0.001))
        if markets := examination.markets:
            more = f", and {len(markets) - _NAMED} more" if len(markets) > _NAMED else ""
            yield from self._wrapped(f"Markets: {', '.join(markets[:_NAMED])}{more}", 0)
        if examination.odd:
            such = f", such as {examination.odd_example}" if examination.odd_example else ""
            yield from self._wrapped(
                f"Besides, {_many(examination.odd, 'publication')} on channels that are no streams{such}: expected "
                "names such as trade@TATA_INR",
                0,
            )
        if examination.gaps:
            yield from self._wrapped(
                f"In {_many(examination.gaps, 'gap')} nothing was heard: what ids say across them does not count", 0
            )

    def _kinds(self, examination: Examination, seconds: float) -> Iterator[str]:
        rows = [("kind", "streams", "publications", "a second", "bytes each", "dropped", "")]
        for each in examination.kinds.values():
            rate, average = each.publications / seconds, each.bytes / max(1, each.publications)
            rows.append(
                (
                    each.name,
                    f"{len(each.markets):,}",
                    f"{each.publications:,}",
                    f"{rate:,.1f}",
                    size(average).removesuffix(" bytes"),
                    f"{each.dropped:,}" if each.dropped else "-",
                    each.note,
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *figures, note in rows:
            cells = [figure.rjust(cell) for figure, cell in zip(figures, widths[1:-1], strict=True)]
            yield "  ".join([first.ljust(widths[0]), *cells, note]).rstrip()

    def features(self, examination: Examination) -> Iterator[str]:
        yield ""
        yield self._painted("What can be made of it", "bold")
        kind = ""
        heard = {each.name for each in examination.kinds.values() if each.publications > each.dropped}
        for finding in examination.findings:
            if finding.feature.kind != kind:
                kind = finding.feature.kind
                yield f" {'all kinds' if kind == 'any' else kind}"
                if kind != "any" and kind not in heard:
                    yield f"  {'unknown':<{_MARGIN - 2}}no good {kind} was heard"
            if kind == "any" or kind in heard:
                yield from self._feature(finding)

    def _feature(self, finding: Finding) -> Iterator[str]:
        feature, verdict = finding.feature, finding.verdict
        lead = f"  {self._painted(f'{verdict:<{_MARGIN - 2}}', verdict)}"
        for number, line in enumerate(wrap(_plain(feature.written), self._columns - _MARGIN)):
            yield (lead if not number else " " * _MARGIN) + line
        if verdict not in ("no", "partly"):
            return
        yield from self._wrapped(_of(finding), _MARGIN)
        yield from self._wrapped(f"with it: {_plain(feature.allows)}", _MARGIN)
        yield from self._wrapped(f"without: {_plain(feature.otherwise)}", _MARGIN)
        if finding.example is not None:
            yield self._example(finding.example.stream, finding.example.payload)

    def faults(self, faults: Sequence[Fault]) -> Iterator[str]:
        yield ""
        yield self._painted("Faults", "bold")
        for fault in faults:
            first, *rest = wrap(f"{fault.count:,} x {fault.kind}: {fault.what}", self._columns - 2) or [""]
            yield "  " + self._painted(first, "fault")
            for line in rest:
                yield "  " + line
            if fault.example is not None:
                yield self._example(fault.example.stream, fault.example.payload)

    def sum(self, examination: Examination) -> Iterator[str]:
        yield from self._wrapped(_sum(examination), 0, "fault" if status(examination) else "yes")

    def _example(self, stream: str, payload: str) -> str:
        text = clean(f"{stream}  {payload}".rstrip(), self._columns - _MARGIN)
        return " " * _MARGIN + self._painted(text, "dim")

    def _wrapped(self, text: str, margin: int, paint: str = "") -> Iterator[str]:
        for line in wrap(text, self._columns - margin):
            yield " " * margin + self._painted(line, paint)

    def _painted(self, text: str, name: str) -> str:
        return f"{COLOURS[name]}{text}{_END}" if self._colour and name in COLOURS else text


def _sum(examination: Examination) -> str:
    if not examination.publications:
        return (
            "Nothing was published. Is this the engine's server, is this the prefix of its channels, and does it "
            "publish on channels, or add to Redis Streams (--source streams)?"
        )
    if not any(each.publications for each in examination.kinds.values()):
        return "Nothing was published on any stream: the names of the channels are others."
    faults = sum(each.count for each in examination.faults)
    missing = sum(each.verdict in ("no", "partly") for each in examination.findings)
    said = (
        f"{_many(faults, 'fault')}, which clients would notice: see above." if faults else "All that was heard is good."
    )
    if missing:
        return f"{said} More can be had: {missing} of {len(examination.findings)} lines above say no or partly."
    return said if faults else f"{said} All that there is can be made of it."


def _of(finding: Finding) -> str:
    bad = finding.of - finding.good
    if not finding.unit:
        return finding.what
    if bad < finding.of:
        return f"not so in {bad:,} of {_many(finding.of, finding.unit)}, first: {finding.what}"
    return f"not so in {'the only' if bad == 1 else f'any of {bad:,}'} {finding.unit}{'s' * (bad > 1)}: {finding.what}"


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
