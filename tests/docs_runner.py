"""Reads the documentation's examples, so that tests can execute them: fenced blocks, tables, and transcripts.

A transcript is a conversation, one step a line; a line that begins with a blank goes on with the line before it.

    # words                     for the reader
    daemon [OPTION …]           starts a daemon with these options; without this line it has none
    token NAME {CLAIMS}         a token of these claims, signed with /etc/marketfeed/token.key; <NAME> stands for it
    connect PATH [as NAME]      a client connects; the status line that may follow says how that is refused
    HEADER: VALUE               a header of the request on the line before
    [NAME]> TEXT                the client sends a message; `binary HEX` is a binary one
    [NAME]< JSON                the client gets this message next
    [NAME]< close CODE REASON   the server closes the client's connection
    redis> COMMAND              what an engine or an operator tells the Redis server
    [NAME ]hangs up             the client's connection ends
    redis stops, redis starts   the server ends without a word, and comes back
    GET PATH                    a plain HTTP request; the status line that follows is its answer
    STATUS TEXT                 a status line: the number and the body
    signal NAME                 the daemon gets a signal
    exits STATUS                the daemon has ended

Messages are compared as JSON, numbers by their spelling. `…` stands for any value, inside a string for any text, and as
the last of several members of an object for any others, or none. A string that is nothing but `<NAME>` is any text
where it is received first, and the same one wherever it comes again. A number of 13 digits is a moment in ms since
1970: it stands for any such number, the same one for the same other one, and later ones for later ones. In a token a
number of 10 digits is a moment in seconds, and 1790000000 is the present.
/etc/marketfeed/marketfeed.toml is the file in which the documentation declares kinds of streams.
"""

from __future__ import annotations

import json
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "DOCUMENTS",
    "ROOT",
    "Block",
    "Moments",
    "Number",
    "Step",
    "Table",
    "anchors",
    "blocks",
    "commands",
    "inline_code",
    "is_for_the_machine",
    "links",
    "matches",
    "mentions",
    "metrics",
    "read_message",
    "steps",
    "tables",
]

ROOT = Path(__file__).parent.parent
DOCUMENTS = tuple(
    sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
)

_FENCE = re.compile(r"( *)```(\S*)")
_HEADING = re.compile(r"(#+) +(.+)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MENTION = re.compile(r"\b(?:docs/[\w-]+|README|[A-Z]{4,})\.md\b(?:#[\w-]+)?")
_STRING_OR_ANY = re.compile(r'"(?:[^"\\]|\\.)*"|,\s*…(?=\s*\})|…')


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: the number of its first line; `kind`: the word behind the fence."""

    document: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Table:
    """A table, and the heading that it stands under. Cells are as they are written."""

    heading: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Step:
    """One line of a transcript: what is done, by whom, and the rest of the line."""

    line: int
    verb: str
    actor: str
    rest: str


# Documents.


def blocks(*kinds: str) -> list[Block]:
    """The fenced blocks of all documents; with `kinds`, those only."""
    found = [block for document in DOCUMENTS for block in _blocks(document)]
    return [block for block in found if not kinds or block.kind in kinds]


def _blocks(document: str) -> Iterator[Block]:
    indent, kind, start = "", "", 0
    text: list[str] | None = None
    for number, line in enumerate(_lines(document), 1):
        fence = _FENCE.match(line)
        if text is None and fence:
            indent, kind, start, text = fence[1], fence[2], number + 1, []
        elif text is not None and fence:
            yield Block(document, start, kind, "\n".join(text) + "\n")
            text = None
        elif text is not None:
            text.append(line.removeprefix(indent))
    assert text is None, f"{document}:{start}: the block has no end"


def tables(document: str) -> list[Table]:
    """The tables of a document."""
    found: list[Table] = []
    heading, previous = "", ""
    for line in _prose(document):
        title = _HEADING.match(line)
        heading = title[2] if title else heading
        if re.fullmatch(r"\|[-|: ]+\|", line):
            found.append(Table(heading, _cells(previous), []))
        elif line.startswith("|") and previous.startswith("|"):
            found[-1].rows.append(_cells(line))
        previous = line
    return found


def metrics(document: str) -> dict[str, tuple[str, set[str]]]:
    """The metrics of a document, by name: the type and the labels of each."""
    (rows,) = [table.rows for table in tables(document) if table.header == ["metric", "type", "labels", "meaning"]]
    return {
        name.strip("`"): (kind, {label.strip("` ") for label in labels.split(",") if label.strip()})
        for name, kind, labels, _ in rows
    }


def _cells(row: str) -> list[str]:
    return [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = [title[2] for line in _prose(document) if (title := _HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(document: str) -> list[str]:
    """What a document links to, pictures too."""
    return [target for line in _prose(document) for target in _LINK.findall(line)]


def mentions(path: Path) -> list[str]:
    """The documents that a Python file names in its docstrings and comments, as `docs/protocol.md#gaps`."""
    found: list[str] = []
    begins = True
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and begins):
                found += _MENTION.findall(token.string)
            else:
                begins = token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
    return found


def _prose(document: str) -> Iterator[str]:
    """The lines outside of fenced blocks."""
    inside = False
    for line in _lines(document):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield line


def _lines(document: str) -> list[str]:
    return (ROOT / document).read_text(encoding="utf-8").splitlines()


def inline_code(document: str) -> list[str]:
    """What stands between backquotes in the prose."""
    return re.findall(r"`([^`]+)`", "\n".join(_prose(document)))


def commands(block: Block) -> list[str]:
    """The commands of a block of kind `sh`, one a line, without `sudo`."""
    return [line.removeprefix("sudo ") for line in block.text.splitlines() if line]


def is_for_the_machine(command: str) -> bool:
    """Whether a command changes the machine or the checkout, so that a test reads it and does not run it."""
    return (
        re.match(r"(apt-get|make|python3 -m venv|\S*/pip|systemctl|nginx|cp|ln|docker|kubectl) ", command) is not None
    )


# Transcripts.

_STEPS = (
    ("redis", re.compile(r"redis> (?P<rest>.+)")),
    ("redis stops", re.compile(r"redis stops")),
    ("redis starts", re.compile(r"redis starts")),
    ("daemon", re.compile(r"daemon(?: (?P<rest>.+))?")),
    ("token", re.compile(r"token (?P<actor>\w+) (?P<rest>\{.+\})")),
    ("connect", re.compile(r"connect (?P<rest>\S+)(?: as (?P<actor>\w+))?")),
    ("binary", re.compile(r"(?P<actor>\w*)> binary (?P<rest>[0-9a-f ]+)")),
    ("send", re.compile(r"(?P<actor>\w*)> (?P<rest>.+)")),
    ("closed", re.compile(r"(?P<actor>\w*)< close (?P<rest>\d{4} .+)")),
    ("expect", re.compile(r"(?P<actor>\w*)< (?P<rest>.+)")),
    ("hangs up", re.compile(r"(?:(?P<actor>\w+) )?hangs up")),
    ("get", re.compile(r"GET (?P<rest>\S+)")),
    ("header", re.compile(r"(?P<rest>[A-Z][A-Za-z-]+: .+)")),
    ("status", re.compile(r"(?P<rest>\d{3} .+)")),
    ("signal", re.compile(r"signal (?P<rest>\w+)")),
    ("exits", re.compile(r"exits (?P<rest>\d+)")),
)


def steps(block: Block) -> list[Step]:
    """The steps of a transcript. Fails on a line that is none."""
    joined: list[tuple[int, str]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith(" "):
            joined[-1] = (joined[-1][0], f"{joined[-1][1]} {line.strip()}")
        elif line and not line.startswith("#"):
            joined.append((number, line))
    return [_step(block, number, line) for number, line in joined]


def _step(block: Block, number: int, line: str) -> Step:
    for verb, pattern in _STEPS:
        found = pattern.fullmatch(line)
        if found:
            groups = found.groupdict()
            return Step(number, verb, groups.get("actor") or "", groups.get("rest") or "")
    raise AssertionError(f"{block.document}:{number}: no step of a transcript: {line}")


@dataclass(frozen=True)
class Number:
    """A number as it is spelled."""

    text: str


class _Any:
    """Stands for any value."""


_ANY = _Any()


@dataclass
class Moments:
    """Which moment of the documentation stands for which of the test, and which `<NAME>` for which text."""

    known: dict[int, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def name(self, written: str, actual: object) -> bool:
        """Whether this text is the one that `<NAME>` stands for; the first one is."""
        return isinstance(actual, str) and self.texts.setdefault(written, actual) == actual

    def match(self, written: Number, actual: object) -> bool:
        if not isinstance(actual, Number) or not _is_moment(actual):
            return False
        self.known.setdefault(int(written.text), int(actual.text))
        ours = [self.known[moment] for moment in sorted(self.known)]
        return self.known[int(written.text)] == int(actual.text) and ours == sorted(ours)


def read_message(text: str) -> Any:
    """A message as it is written in a transcript, or as it was received."""
    marked = _STRING_OR_ANY.sub(_marked, text)
    return json.loads(marked, parse_int=Number, parse_float=Number, object_hook=_as_any)


def _marked(found: re.Match[str]) -> str:
    if not found[0].endswith("…"):
        return found[0]
    return ',"…":0' if found[0].startswith(",") else '{"…":0}'


def _as_any(fields: dict[str, Any]) -> Any:
    return _ANY if fields.keys() == {"…"} else fields


def matches(written: Any, actual: Any, moments: Moments) -> bool:
    """Whether a message is what the documentation says."""
    if written is _ANY:
        return True
    if isinstance(written, Number) and _is_moment(written):
        return moments.match(written, actual)
    if isinstance(written, str) and (named := re.fullmatch(r"<(\w+)>", written)):
        return moments.name(named[1], actual)
    if isinstance(written, str) and "…" in written:
        pattern = ".*".join(map(re.escape, written.split("…")))
        return isinstance(actual, str) and re.fullmatch(pattern, actual, re.DOTALL) is not None
    if isinstance(written, dict):
        if not isinstance(actual, dict):
            return False
        named = {name: value for name, value in written.items() if name != "…"}
        has_all = named.keys() <= actual.keys() if "…" in written else named.keys() == actual.keys()
        return has_all and all(matches(value, actual[name], moments) for name, value in named.items())
    if isinstance(written, list):
        return (
            isinstance(actual, list)
            and len(written) == len(actual)
            and all(matches(*pair, moments) for pair in zip(written, actual, strict=True))
        )
    return type(written) is type(actual) and bool(written == actual)


def _is_moment(number: Number) -> bool:
    return re.fullmatch(r"\d{13}", number.text) is not None
