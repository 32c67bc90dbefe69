"""What a parent and its worker processes say to each other: one JSON object a line, on two pipes.

A parent's first line to a process is its `Role`. From then on it says what is to be done, and asks questions; the
process says that it is ready, that it lives, and answers. What it logs comes on a third pipe (`relay`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from marketfeed.boundaries import Past

__all__ = [
    "VARIABLE",
    "Accept",
    "Answer",
    "Beat",
    "Found",
    "FromWorker",
    "Leave",
    "Lines",
    "Question",
    "Ready",
    "Reload",
    "Reloaded",
    "Role",
    "Seek",
    "Sought",
    "ToWorker",
    "decode_from_worker",
    "decode_pasts",
    "decode_role",
    "decode_to_worker",
    "encode",
]

VARIABLE = "MARKETFEED_CONTROL"
"""The variable by which a process learns that it is a worker: the numbers of the files of its pipes."""


class Role(msgspec.Struct, frozen=True):
    """What a process is: the worker `number` of so many `workers`, behind the port that is described as `port`.

    `queues`: the sockets of each queue, as (file, address family). `first_sample`: the number of its first sample.
    `server`: the path of the parent's own Redis-compatible server, if there is one.
    """

    number: int
    workers: int
    port: str
    queues: list[list[tuple[int, int]]]
    first_sample: int
    server: str | None


class Accept(msgspec.Struct, frozen=True, tag="accept"):
    """Accept connections from these queues, and from no others."""

    queues: tuple[int, ...]


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Read the settings again."""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Send the clients away, and end. `retire`: accept nobody from now on; `at_once`: waste no time."""

    retire: bool = False
    at_once: bool = False


class Question(msgspec.Struct, frozen=True, tag="question"):
    """What the admin port is asked. `number`: of the answer; the rest as each subject has it."""

    number: int
    subject: str
    name: str = ""
    order: str = ""
    limit: int = 0
    since: int = 0


class Sought(msgspec.Struct, frozen=True, tag="sought"):
    """Another worker asks for the pasts of these (stream, epoch), the epochs of which are this one's."""

    number: int
    wanted: list[tuple[str, str]]


class Found(msgspec.Struct, frozen=True, tag="found"):
    """What other workers say to the `Seek` of this number."""

    number: int
    found: list[list[Past]]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """It can accept. `epochs`: what all epochs of its offsets begin with, up to a full stop."""

    epochs: str


class Seek(msgspec.Struct, frozen=True, tag="seek"):
    """It asks for the pasts of these (stream, epoch), the epochs of which are those of others."""

    number: int
    wanted: list[tuple[str, str]]


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """It lives, and this is why it should get no clients."""

    reasons: list[str]


class Reloaded(msgspec.Struct, frozen=True, tag="reloaded"):
    """The settings have been read again, and could be used, or not."""

    succeeded: bool


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """To the question of this number; `found` is JSON."""

    number: int
    found: msgspec.Raw


ToWorker = Accept | Reload | Leave | Question | Sought | Found
FromWorker = Ready | Beat | Reloaded | Answer | Seek

_role = msgspec.json.Decoder(Role)
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)

decode_role = _role.decode
decode_pasts = msgspec.json.Decoder(list[Past]).decode
decode_to_worker = _to_worker.decode
decode_from_worker = _from_worker.decode


def encode(message: Any) -> bytes:
    """A message as its line."""
    return msgspec.json.encode(message) + b"\n"


class Lines:
    """Bytes as they come, into lines. What is behind the last end of a line waits for more."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        first, newline, rest = data.partition(b"\n")
        self._parts.append(first)
        if not newline:
            return []
        *lines, last = (b"".join(self._parts) + b"\n" + rest).split(b"\n")
        self._parts = [last]
        return lines
