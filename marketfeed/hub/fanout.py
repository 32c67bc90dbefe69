"""Fan-out: one publication's bytes on their way to every subscriber of its stream. This is the hot path.

1. What a flush has for a client reaches it in one write, straight to the socket while the client keeps up.
2. A member that fails or stalls is left for its own outbox to deal with; the loop goes on to the next. Those for whom
   more would wait than may are named, and are to be ended once the loop is over. Whatever a member raises is the end of
   that member only.
3. What a group has is taken before it is sent: a failure leaves no group that would not be sent any more.
4. What is done for one member stands in both loops: a function of its own would be one more call for each member.
"""

from __future__ import annotations

from marketfeed.boundaries import LONGEST_SEND, WOULD_BLOCK, Subscriber
from marketfeed.hub.counts import Traffic
from marketfeed.hub.faults import Faults
from marketfeed.hub.groups import Audience, Group

__all__ = ["send_group", "send_groups"]


def send_group(group: Group, traffic: Traffic, faults: Faults) -> list[Subscriber]:
    """Send what one group has. Returns the clients who are too slow."""
    frames = group.frames
    group.frames = []
    group.stream.counts.delivered += len(frames) * group.size
    traffic.reached = group.size
    data = frames[0] if len(frames) == 1 else b"".join(frames)
    size = len(data)
    is_long = size > LONGEST_SEND
    slow = []
    unsent = 0
    to_send = size * group.size
    for audience in group.audiences:
        for member in audience.members:
            try:
                if member.direct:
                    try:
                        sent = member.send_long(data) if is_long else member.send(data)
                    except WOULD_BLOCK:
                        sent = 0
                    except OSError:
                        unsent += size
                        member.failed()
                        continue
                    if sent != size:
                        unsent += size - sent
                        if not member.stalled(data, sent):
                            slow.append(member)
                else:
                    unsent += size
                    if not member.wait(group, frames):
                        slow.append(member)
            except Exception:
                faults.end(member)
    traffic.sent += to_send - unsent
    if group.depths:
        group.depths.clear()
    return slow


def send_groups(dirty: list[Group], traffic: Traffic, faults: Faults) -> list[Subscriber]:
    """Send what several groups have, each client's share in one write. Returns the clients who are too slow."""
    slow: list[Subscriber] = []
    touched: list[Audience] = []
    for group in dirty:
        frames = group.frames
        group.leaving, group.frames = frames, group.leaving
        group.stream.counts.delivered += len(frames) * group.size
    traffic.reached = 0
    try:
        for group in dirty:
            frames = group.leaving
            group.data = frames[0] if len(frames) == 1 else b"".join(frames)
            for audience in group.audiences:
                batch = audience.batch
                if not batch:
                    touched.append(audience)
                batch.append(group)
        for audience in touched:
            traffic.reached += len(audience.members)
            slow += _send_batch(audience, traffic, faults)
    except BaseException:
        for audience in touched:
            audience.batch = []
        raise
    finally:
        for group in dirty:
            group.leaving.clear()
            group.data = b""
            if group.depths:
                group.depths.clear()
    return slow


def _send_batch(audience: Audience, traffic: Traffic, faults: Faults) -> list[Subscriber]:
    """Send an audience what its groups have. Returns those who are too slow."""
    batch = audience.batch
    audience.batch = []
    data = batch[0].data if len(batch) == 1 else b"".join([group.data for group in batch])
    size = len(data)
    is_long = size > LONGEST_SEND
    slow = []
    unsent = 0
    to_send = size * len(audience.members)
    for member in audience.members:
        try:
            if member.direct:
                try:
                    sent = member.send_long(data) if is_long else member.send(data)
                except WOULD_BLOCK:
                    sent = 0
                except OSError:
                    unsent += size
                    member.failed()
                    continue
                if sent != size:
                    unsent += size - sent
                    if not member.stalled(data, sent):
                        slow.append(member)
            else:
                unsent += size
                if not all(member.wait(group, group.leaving) for group in batch):
                    slow.append(member)
        except Exception:
            faults.end(member)
    traffic.sent += to_send - unsent
    return slow
