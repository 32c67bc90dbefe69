"""RFC 6455 and RFC 7692, driven by another implementation against an echo server of our own protocol and outbox.

The sections are those in which such suites are usually ordered; each violation ends with the code of the RFC, in order,
and leaves nothing behind.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from tests.by_hand import deflated
from tests.by_hand import frame as raw
from tests.guard import DEADLINE
from tests.strategies import property_test
from tests.websocket.beside import COMPRESSED
from tests.websocket.driver import Driver, Peer
from tests.websocket.echo import EchoServer

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG
MAX_MESSAGE = 65536
SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536)
RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)


def fragments(payload: bytes, size: int, opcode: Opcode = TEXT) -> Iterator[Frame]:
    """A message in fragments of `size` bytes; the last may be shorter, or empty."""
    for at in range(0, len(payload) + 1, size):
        yield Frame(CONTINUATION if at else opcode, payload[at : at + size], fin=at + size > len(payload))


def chopped(size: int) -> Callable[[bytes], list[bytes]]:
    """A network that delivers `size` bytes at a time."""
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


def text(size: int) -> bytes:
    """Text of so many bytes."""
    return ("*é€𝄞".encode() * (size // 10 + 1))[: size - size % 10].ljust(size, b"*")


def assert_echoed(driver: Driver, payload: bytes, opcode: Opcode = TEXT) -> None:
    assert driver.received == [(opcode, payload)]


def assert_goes_on(driver: Driver) -> None:
    """The connection works, and can be closed in order."""
    driver.say(Frame(TEXT, b"still here"))
    assert_echoed(driver, b"still here")
    driver.close()
    driver.assert_closed(1000)


class TestFraming:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_every_way_to_write_a_length(self, size: int, opcode: Opcode) -> None:
        """The payload comes back as it was sent."""
        driver = Driver()
        driver.say(Frame(opcode, text(size)))
        assert_echoed(driver, text(size), opcode)
        assert_goes_on(driver)

    @pytest.mark.parametrize("size", [1, 2, 997])
    def test_a_frame_in_pieces(self, size: int) -> None:
        """Its head too may be cut anywhere."""
        driver = Driver(cut=chopped(size))
        driver.say(Frame(TEXT, text(65536)))
        assert_echoed(driver, text(65536))
        assert_goes_on(driver)

    @pytest.mark.parametrize(("size", "length_bytes"), [(0, 2), (125, 2), (125, 8), (126, 8), (65535, 8)])
    def test_a_length_on_more_bytes_than_it_needs(self, size: int, length_bytes: int) -> None:
        """1002 (RFC 6455, section 5.2: the minimal number of bytes)."""
        driver = Driver()
        driver.say(raw(b"*" * size, length_bytes=length_bytes))
        driver.assert_closed(1002)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    def test_a_frame_without_a_mask(self, opcode: Opcode) -> None:
        """1002 (RFC 6455, section 5.1)."""
        driver = Driver()
        driver.say(raw(b"\x03\xe8", opcode, mask=None))
        driver.assert_closed(1002)

    def test_the_mask_may_be_anything(self) -> None:
        """Zeroes too, which leave the payload as it is."""
        for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80\x01\0\x7f"):
            driver = Driver()
            driver.say(raw(b"hello", mask=mask))
            assert_echoed(driver, b"hello")


class TestPings:
    @pytest.mark.parametrize("payload", [b"", b"hello", b"\0\xff\xfe", b"x" * 125])
    def test_a_ping_is_answered_with_its_payload(self, payload: bytes) -> None:
        """Whatever it is."""
        driver = Driver()
        driver.say(Frame(PING, payload))
        assert driver.received == [(PONG, payload)]
        assert_goes_on(driver)

    @pytest.mark.parametrize("opcode", [PING, PONG])
    def test_a_payload_of_126_bytes(self, opcode: Opcode) -> None:
        """1002 (RFC 6455, section 5.5)."""
        driver = Driver()
        driver.say(raw(b"x" * 126, opcode))
        driver.assert_closed(1002)

    def test_a_ping_byte_by_byte(self) -> None:
        """It is one all the same."""
        driver = Driver(cut=chopped(1))
        driver.say(Frame(PING, b"x" * 125))
        assert driver.received == [(PONG, b"x" * 125)]
        assert_goes_on(driver)

    @pytest.mark.parametrize("payload", [b"", b"unsolicited"])
    def test_a_pong_that_nobody_asked_for(self, payload: bytes) -> None:
        """Is ignored; a ping behind it is not."""
        driver = Driver()
        driver.say(Frame(PONG, payload), Frame(PING, b"p"), Frame(PONG, payload))
        assert driver.received == [(PONG, b"p")]
        assert_goes_on(driver)

    @pytest.mark.parametrize("size", [1, 1 << 20])
    def test_ten_pings_in_a_row(self, size: int) -> None:
        """Ten pongs, in order."""
        driver = Driver(cut=chopped(size))
        driver.say(*(Frame(PING, b"ping %d" % number) for number in range(10)))
        assert driver.received == [(PONG, b"ping %d" % number) for number in range(10)]
        assert_goes_on(driver)


class TestReserved:
    @pytest.mark.parametrize("rsv", range(1, 8))
    @pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
    @pytest.mark.parametrize("size", [1, 1 << 20])
    def test_reserved_bits(self, rsv: int, opcode: Opcode, size: int) -> None:
        """1002 where no extension was agreed upon; the message before it is echoed still."""
        driver = Driver(cut=chopped(size))
        driver.say(Frame(TEXT, b"before") if size > 1 else b"", raw(b"\x03\xe8", opcode, rsv=rsv))
        received = driver.received
        assert received[:-1] == ([(TEXT, b"before")] if size > 1 else [])
        assert received[-1][0] == CLOSE
        assert driver.close_code == 1002

    @pytest.mark.parametrize("opcode", RESERVED)
    @pytest.mark.parametrize("payload", [b"", b"payload"])
    @pytest.mark.parametrize("size", [1, 1 << 20])
    def test_reserved_opcodes(self, opcode: int, payload: bytes, size: int) -> None:
        """1002, for data and for control frames; what follows is not read."""
        driver = Driver(cut=chopped(size))
        driver.say(raw(payload, opcode), Frame(TEXT, b"after"), Frame(PING, b"p"))
        driver.assert_closed(1002)


class TestFragmentation:
    @pytest.mark.parametrize("size", [1, 3, 125, 1000])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_a_message_in_fragments(self, size: int, opcode: Opcode) -> None:
        """Cut anywhere, within a character too; an empty fragment may be the last."""
        driver = Driver()
        driver.say(*fragments(text(1000), size, opcode))
        assert_echoed(driver, text(1000), opcode)
        assert_goes_on(driver)

    @pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
    def test_control_frames_between_fragments(self, chunk: int) -> None:
        """They are answered at once, and the message is whole."""
        driver = Driver(cut=chopped(chunk))
        driver.say(Frame(TEXT, b"one", fin=False))
        for number in range(3):
            driver.say(Frame(PING, b"%d" % number))
            assert driver.received == [(PONG, b"%d" % number)]
            driver.say(Frame(PONG, b""), Frame(CONTINUATION, b"two", fin=False))
        driver.say(Frame(CONTINUATION, b""))
        assert_echoed(driver, b"onetwotwotwo")
        assert_goes_on(driver)

    def test_fragments_that_are_empty(self) -> None:
        """All of them: an empty message; or only the first, or the last."""
        for pieces in ((b"", b"", b""), (b"", b"x", b""), (b"x", b"", b"")):
            driver = Driver()
            first, second, third = pieces
            driver.say(
                Frame(TEXT, first, fin=False), Frame(CONTINUATION, second, fin=False), Frame(CONTINUATION, third)
            )
            assert_echoed(driver, b"".join(pieces))

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_a_fragmented_control_frame(self, opcode: Opcode) -> None:
        """1002 (RFC 6455, section 5.5)."""
        driver = Driver()
        driver.say(raw(b"\x03\xe8", opcode, fin=False), raw(b"", CONTINUATION))
        driver.assert_closed(1002)

    @pytest.mark.parametrize("fin", [True, False])
    @pytest.mark.parametrize("before", [b"", raw(b"x"), raw(b"x", fin=False) + raw(b"y", CONTINUATION)])
    def test_a_continuation_of_nothing(self, fin: bool, before: bytes) -> None:
        """1002, also when there was a message that has ended."""
        driver = Driver()
        driver.say(before)
        assert len(driver.received) == bool(before)
        driver.say(raw(b"x", CONTINUATION, fin=fin))
        driver.assert_closed(1002)

    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    @pytest.mark.parametrize("fin", [True, False])
    def test_a_new_message_in_the_middle_of_one(self, opcode: Opcode, fin: bool) -> None:
        """1002 (RFC 6455, section 5.4)."""
        driver = Driver()
        driver.say(Frame(TEXT, b"one", fin=False), Frame(PING, b""))
        assert driver.received == [(PONG, b"")]
        driver.say(raw(b"two", opcode, fin=fin))
        driver.assert_closed(1002)

    def test_messages_do_not_run_together(self) -> None:
        """One in fragments, one in a frame, one in fragments."""
        driver = Driver()
        driver.say(*fragments(b"one", 2), Frame(TEXT, b"two"), *fragments(b"three", 2, BINARY))
        assert driver.received == [(TEXT, b"one"), (TEXT, b"two"), (BINARY, b"three")]


VALID = (
    *("", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufdd0"),
    *("\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0001fffe", "\U000fffff", "\U0010fffe", "\U0010ffff", "e\u0301"),
)
INVALID = (
    *(b"\x80", b"\xbf", b"\x80\x80", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"),  # no beginning
    *(b"\xc3\x28", b"\xe2\x82\x28", b"\xe2\x28\xa1", b"\xf0\x9f\x92\x28", b"\xf0\x28\x92\xa9", b"\xc3\xc3\xa9"),  # cut
    *(b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf"),  # overlong
    *(b"\xc0\x80", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf"),
    *(b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xbf\xbf", b"\xed\xa0\x80\xed\xb0\x80"),  # surrogates
    *(b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80"),  # beyond U+10FFFF
)


class TestUtf8:
    @pytest.mark.parametrize("valid", VALID, ids=ascii)
    def test_what_is_utf_8(self, valid: str) -> None:
        """Comes back, in one frame and byte by byte."""
        payload = valid.encode()
        for frames in ([Frame(TEXT, payload)], list(fragments(payload, 1))):
            driver = Driver()
            driver.say(*frames)
            assert_echoed(driver, payload)

    @pytest.mark.parametrize("invalid", INVALID, ids=lambda data: data.hex())
    @pytest.mark.parametrize("before", [b"", "κόσμε".encode()], ids=["alone", "behind text"])
    def test_what_is_none(self, invalid: bytes, before: bytes) -> None:
        """1007, in one frame, in several, and however the bytes are cut."""
        payload = before + invalid + b"after"
        for chunk in (1, 1 << 20):
            for frames in ([raw(payload)], [frame.serialize(mask=True) for frame in fragments(payload, 1)]):
                driver = Driver(cut=chopped(chunk))
                driver.say(*frames)
                driver.assert_closed(1007)

    @pytest.mark.parametrize("whole", ["é", "€", "𝄞"])
    def test_text_that_ends_within_a_character(self, whole: str) -> None:
        """1007; the same bytes in two fragments are text."""
        for cut in range(1, len(whole.encode())):
            first, second = whole.encode()[:cut], whole.encode()[cut:]
            driver = Driver()
            driver.say(raw(b"ab" + first))
            driver.assert_closed(1007)
            driver = Driver()
            driver.say(Frame(TEXT, b"ab" + first, fin=False), Frame(CONTINUATION, second))
            assert_echoed(driver, b"ab" + whole.encode())
            driver = Driver()
            driver.say(raw(b"ab" + first, fin=False), raw(b"", CONTINUATION))
            driver.assert_closed(1007)

    def test_it_is_not_waited_for_the_end(self) -> None:
        """Neither of the message nor of the frame: the close comes with the byte that cannot be."""
        for head in (raw(b"\xce\xba\xf4\x90", fin=False), raw(b"\xce\xba\xf4\x90" + b"x" * 1000)[:-1000]):
            driver = Driver()
            driver.say(head[:-1])
            assert not driver.received
            driver.say(head[-1:])
            assert driver.close_code == 1007

    def test_binary_may_be_anything(self) -> None:
        """It is not looked at."""
        for invalid in INVALID:
            driver = Driver()
            driver.say(*fragments(invalid, 1, BINARY))
            assert_echoed(driver, invalid, BINARY)

    @property_test
    @given(st.text(max_size=60), st.integers(1, 7), st.integers(1, 20))
    def test_any_text_in_any_fragments(self, said: str, size: int, chunk: int) -> None:
        """Comes back."""
        driver = Driver(cut=chopped(chunk))
        driver.say(*fragments(said.encode(), size))
        assert_echoed(driver, said.encode())

    @property_test
    @given(
        st.binary(max_size=8)
        | st.tuples(st.text(max_size=3), st.binary(max_size=4)).map(lambda x: x[0].encode() + x[1])
    )
    def test_any_bytes_are_text_or_none(self, payload: bytes) -> None:
        """As Python's own decoder has it."""
        driver = Driver()
        driver.say(raw(payload))
        try:
            payload.decode()
        except UnicodeDecodeError:
            driver.assert_closed(1007)
        else:
            assert_echoed(driver, payload)


def closing(code: int, reason: bytes = b"") -> bytes:
    return raw(code.to_bytes(2, "big") + reason, CLOSE)


class TestClose:
    @pytest.mark.parametrize(
        "code", [*range(1000, 1004), *range(1007, 1014), 3000, 3999, 4000, 4999], ids=lambda code: str(code)
    )
    @pytest.mark.parametrize("reason", [b"", b"bye", "größer".encode(), b"x" * 123], ids=len)
    def test_a_code_that_a_client_may_send(self, code: int, reason: bytes) -> None:
        """It is answered with 1000, and the connection ends."""
        driver = Driver()
        driver.say(closing(code, reason))
        driver.assert_closed(1000)

    def test_no_code(self) -> None:
        """Is allowed."""
        driver = Driver()
        driver.say(raw(b"", CLOSE))
        driver.assert_closed(1000)

    @pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
    def test_a_code_that_nobody_may_send(self, code: int) -> None:
        """1002 (RFC 6455, section 7.4)."""
        for reason in (b"", b"bye"):
            driver = Driver()
            driver.say(closing(code, reason))
            driver.assert_closed(1002)

    def test_half_a_code(self) -> None:
        """1002 (RFC 6455, section 5.5.1)."""
        driver = Driver()
        driver.say(raw(b"\x03", CLOSE))
        driver.assert_closed(1002)

    @pytest.mark.parametrize("invalid", INVALID, ids=lambda data: data.hex())
    def test_a_reason_that_is_no_text(self, invalid: bytes) -> None:
        """1007."""
        driver = Driver()
        driver.say(closing(1000, b"bye" + invalid))
        driver.assert_closed(1007)

    def test_a_reason_that_ends_within_a_character(self) -> None:
        """1007."""
        driver = Driver()
        driver.say(closing(1000, b"bye\xe2\x82"))
        driver.assert_closed(1007)

    def test_a_close_that_is_too_long(self) -> None:
        """1002: it is a control frame."""
        driver = Driver()
        driver.say(closing(1000, b"x" * 124))
        driver.assert_closed(1002)

    @pytest.mark.parametrize(
        "after", [raw(b"x"), raw(b"x", PING), raw(b"x", 3), closing(1001), closing(0), b"\xff" * 9]
    )
    @pytest.mark.parametrize("chunk", [1, 1 << 20])
    def test_nothing_counts_after_a_close(self, after: bytes, chunk: int) -> None:
        """Neither data nor a second close, nor what is no frame at all."""
        driver = Driver(cut=chopped(chunk))
        driver.say(closing(1000) + after)
        driver.assert_closed(1000)

    def test_a_close_in_the_middle_of_a_message(self) -> None:
        """Is answered; the message is not."""
        driver = Driver()
        driver.say(Frame(TEXT, b"one", fin=False), closing(1000), Frame(CONTINUATION, b"two"))
        driver.assert_closed(1000)

    def test_what_was_said_before_it_is_echoed(self) -> None:
        """In order, all of it."""
        driver = Driver()
        driver.say(Frame(TEXT, text(65536)), Frame(PING, b"p"), closing(1000))
        first, second, third = driver.received
        assert (first, second) == ((TEXT, text(65536)), (PONG, b"p"))
        assert third[0] == CLOSE
        assert driver.wire.lost is not None

    @pytest.mark.parametrize("more", [b"", raw(b"late"), raw(b"late", PING)])
    def test_both_close_at_once(self, more: bytes) -> None:
        """Each takes the other's close for the answer to its own, and no second one is sent."""
        server = EchoServer()
        driver = Driver(server)
        driver.wire.protocol.sendCloseFrame(4000, b"ours")
        driver.wire.receive(more + closing(4001, b"theirs"))
        driver.wire.settle()
        driver.give(driver.wire.sent)
        driver.assert_closed(4000)
        assert driver.wire.protocol.remoteCloseCode == 4001

    def test_a_client_that_is_gone_without_a_close(self) -> None:
        """Leaves nothing, in the middle of a frame either."""
        for data in (b"", raw(b"x", fin=False), raw(b"hello")[:-2], b"\x81"):
            server = EchoServer()
            driver = Driver(server)
            driver.say(data)
            driver.wire.hang_up()
            server.assert_empty()


class TestLargeMessages:
    @pytest.mark.parametrize("size", [1 << 10, 1 << 14, MAX_MESSAGE - 1, MAX_MESSAGE])
    @pytest.mark.parametrize("fragment", [256, 4096, MAX_MESSAGE + 1])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_up_to_the_limit(self, size: int, fragment: int, opcode: Opcode) -> None:
        """In one frame and in several."""
        driver = Driver()
        driver.say(*fragments(text(size), fragment, opcode))
        assert_echoed(driver, text(size), opcode)
        assert_goes_on(driver)

    @pytest.mark.parametrize("fragment", [1000, 1 << 20])
    @pytest.mark.parametrize("opcode", [TEXT, BINARY])
    def test_beyond_the_limit(self, fragment: int, opcode: Opcode) -> None:
        """1009; nothing of it is echoed."""
        driver = Driver()
        driver.say(*fragments(text(MAX_MESSAGE + 1), fragment, opcode))
        driver.assert_closed(1009)

    @pytest.mark.parametrize("announced", [MAX_MESSAGE + 1, 1 << 32, (1 << 63) - 1])
    def test_the_head_of_a_frame_is_enough(self, announced: int) -> None:
        """1009 before any of it has come; beyond 63 bits it is no length (RFC 6455, section 5.2)."""
        driver = Driver()
        driver.say(raw(b"", announced=announced))
        assert driver.close_code == 1009
        driver = Driver()
        driver.say(raw(b"", announced=announced | 1 << 63))
        assert driver.close_code == 1002

    def test_many_messages_in_a_row(self) -> None:
        """A thousand in one go, in order."""
        driver = Driver()
        driver.say(*(Frame(TEXT, b"%d" % number) for number in range(1000)))
        assert driver.received == [(TEXT, b"%d" % number) for number in range(1000)]

    def test_one_who_sends_and_does_not_read(self) -> None:
        """Is closed with 4008 when its echoes take more than its queue."""
        driver = Driver(EchoServer(client_queue=10_000))
        driver.wire.socket.room = 100
        for _ in range(15):
            driver.wire.receive(raw(b"x" * 1000))
        driver.wire.socket.room = None
        driver.wire.settle()
        driver.give(driver.wire.sent)
        assert driver.close_code == 4008


# Compression.

FACTORIES = [
    ClientPerMessageDeflateFactory(),
    ClientPerMessageDeflateFactory(client_max_window_bits=None),
    ClientPerMessageDeflateFactory(server_no_context_takeover=True),
    ClientPerMessageDeflateFactory(client_no_context_takeover=True),
    ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    *(ClientPerMessageDeflateFactory(server_max_window_bits=bits) for bits in range(9, 16)),
    *(ClientPerMessageDeflateFactory(client_max_window_bits=bits) for bits in (9, 12, 15)),
    ClientPerMessageDeflateFactory(True, True, 9, 9),
    ClientPerMessageDeflateFactory(compress_settings={"level": 0}),
    ClientPerMessageDeflateFactory(compress_settings={"level": 9, "memLevel": 1}),
    ClientPerMessageDeflateFactory(compress_settings={"strategy": zlib.Z_HUFFMAN_ONLY}),
]
DEFLATE = FACTORIES[0]


def noise(size: int) -> bytes:
    """Text that does not compress well, the same each time."""
    return random.Random(size).randbytes(size).hex().encode()[:size]


class TestCompression:
    @pytest.mark.parametrize("factory", FACTORIES, ids=range(len(FACTORIES)))
    @pytest.mark.parametrize("chunk", [7, 1 << 20])
    def test_every_offer(self, factory: ClientPerMessageDeflateFactory, chunk: int) -> None:
        """What was agreed upon holds for both directions, message after message."""
        driver = Driver(extensions=[factory], cut=chopped(chunk))
        assert driver.extensions == 1
        for size in (0, 1, 126, 200, 1000, 40_000, 65535, MAX_MESSAGE):
            for payload in (b"*" * size, text(size), noise(size)):
                driver.say(Frame(TEXT, payload), Frame(BINARY, payload))
                assert driver.received == [(TEXT, payload), (BINARY, payload)]
        assert_goes_on(driver)

    @pytest.mark.parametrize(
        ("extensions", "compression"),
        [([ClientPerMessageDeflateFactory(server_max_window_bits=8)], True), ([DEFLATE], False), ([], True)],
    )
    def test_an_offer_that_is_declined(self, extensions: list[Any], compression: bool) -> None:
        """The connection works without."""
        driver = Driver(EchoServer(compression=compression), extensions)
        assert driver.extensions == 0
        driver.say(Frame(TEXT, b"*" * 1000))
        assert_echoed(driver, b"*" * 1000)
        driver.say(raw(deflated(b"*"), rsv=COMPRESSED))
        driver.assert_closed(1002)

    def test_the_echo_is_compressed(self) -> None:
        """Where it is worth while, with COMPRESSED on its frame."""
        driver = Driver(extensions=[DEFLATE])
        driver.wire.receive(raw(b"*" * 1000) + raw(b"*" * 10))
        large, small = driver.wire.sent.split(b"\x81", 1)
        assert large[0] == 0xC1
        assert len(large) < 100
        assert small == b"\x0a" + b"*" * 10

    @pytest.mark.parametrize("size", [1, 10, 1000])
    def test_fragments(self, size: int) -> None:
        """A message is compressed as a whole: only its first frame has COMPRESSED, and it may be cut anywhere."""
        driver = Driver(extensions=[DEFLATE])
        payload = noise(3000)
        data = deflated(payload)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        for at, piece in enumerate(pieces):
            driver.say(raw(piece, CONTINUATION if at else TEXT, rsv=0 if at else COMPRESSED, fin=at == len(pieces) - 1))
            if at < 3 and at < len(pieces) - 1:
                driver.say(Frame(PING, b"p"))
                assert driver.received == [(PONG, b"p")]
        assert_echoed(driver, payload)
        driver.say(*fragments(payload, 700), raw(b"plain"))  # as the other side compresses fragments
        assert driver.received == [(TEXT, payload), (TEXT, b"plain")]

    def test_a_message_that_is_not_compressed(self) -> None:
        """Each may or may not be."""
        driver = Driver(extensions=[DEFLATE])
        driver.say(
            raw(b"one"),
            raw(deflated(b"two"), rsv=COMPRESSED),
            raw(b"three", BINARY),
            raw(b"", rsv=COMPRESSED),
            raw(b""),
        )
        assert driver.received == [(TEXT, b"one"), (TEXT, b"two"), (BINARY, b"three"), (TEXT, b""), (TEXT, b"")]

    @pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
    def test_the_other_reserved_bits(self, rsv: int) -> None:
        """1002: the extension has a meaning for the first only."""
        driver = Driver(extensions=[DEFLATE])
        driver.say(raw(deflated(b"x"), rsv=rsv))
        driver.assert_closed(1002)

    @pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
    def test_a_compressed_control_frame(self, opcode: Opcode) -> None:
        """1002 (RFC 7692, section 6.1)."""
        driver = Driver(extensions=[DEFLATE])
        driver.say(raw(deflated(b"\x03\xe8"), opcode, rsv=COMPRESSED))
        driver.assert_closed(1002)

    @pytest.mark.parametrize("first", [raw(b"x", fin=False), raw(deflated(b"x"), rsv=COMPRESSED, fin=False)])
    def test_a_continuation_that_says_it_is_compressed(self, first: bytes) -> None:
        """1002 (RFC 7692, section 6.1)."""
        driver = Driver(extensions=[DEFLATE])
        driver.say(first, raw(deflated(b"x"), CONTINUATION, rsv=COMPRESSED))
        driver.assert_closed(1002)

    @pytest.mark.parametrize(
        "data", [b"\xff" * 10, b"\x07", b"\x01\x05\0\x05\0hello", deflated(b"x")[:2] + b"\xff\xff"]
    )
    @pytest.mark.parametrize("fin", [True, False])
    def test_what_is_no_deflate(self, data: bytes, fin: bool) -> None:
        """1007; also where it is only the first of several frames."""
        driver = Driver(extensions=[DEFLATE])
        driver.say(raw(data, rsv=COMPRESSED, fin=fin))
        driver.assert_closed(1007)

    def test_text_that_is_none_when_it_is_inflated(self) -> None:
        """1007, without waiting for the end."""
        for invalid in INVALID:
            driver = Driver(extensions=[DEFLATE])
            driver.say(raw(deflated(b"text" + invalid + b"text"), rsv=COMPRESSED, fin=False))
            driver.assert_closed(1007)

    @pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 50_000_000])
    @pytest.mark.parametrize("fragment", [1000, 1 << 20])
    @pytest.mark.parametrize("chunk", [100, 1 << 20])
    def test_a_bomb(self, size: int, fragment: int, chunk: int) -> None:
        """1009: it is not inflated beyond the limit, in however many frames it comes."""
        data = deflated(b"*" * size)
        pieces = [data[at : at + fragment] for at in range(0, len(data), fragment)]
        driver = Driver(extensions=[DEFLATE], cut=chopped(chunk))
        driver.say(
            *(
                raw(piece, CONTINUATION if at else TEXT, rsv=0 if at else COMPRESSED, fin=at == len(pieces) - 1)
                for at, piece in enumerate(pieces)
            )
        )
        driver.assert_closed(1009)

    @property_test
    @given(
        st.sampled_from(FACTORIES),
        st.lists(st.text(max_size=400).map(str.encode) | st.integers(0, 70_000).map(text), max_size=4),
        st.integers(1, 5000),
        st.integers(1, 5000),
    )
    def test_any_conversation(
        self, factory: ClientPerMessageDeflateFactory, said: list[bytes], size: int, chunk: int
    ) -> None:
        """Comes back, or is too large."""
        driver = Driver(extensions=[factory], cut=chopped(chunk))
        for payload in said:
            driver.say(*fragments(payload, max(size, len(payload) // 20)))
            if len(payload) > MAX_MESSAGE:
                driver.assert_closed(1009)
                return
            assert_echoed(driver, payload)


anything = st.lists(
    st.builds(
        raw,
        st.binary(max_size=10)
        | st.text(max_size=300).map(str.encode)
        | st.text(max_size=300).map(lambda said: deflated(said.encode())),
        st.sampled_from((TEXT, TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, 3)),
        fin=st.booleans(),
        rsv=st.sampled_from((0, 0, COMPRESSED)),
        mask=st.just(b"mask") | st.just(b"mask") | st.none(),
    )
    | st.just(closing(1000)),
    max_size=6,
).map(b"".join)


class TestChopping:
    @property_test
    @given(anything, st.lists(st.integers(0, 800), max_size=8), st.booleans())
    def test_how_the_bytes_are_cut_makes_no_difference(self, data: bytes, cuts: list[int], compression: bool) -> None:
        """Whatever is sent, the answer is the same to the byte, and so is whether the connection goes on."""
        edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
        outcomes = []
        for pieces in ([data], [data[start:stop] for start, stop in pairwise(edges)]):
            server = EchoServer(max_message=400, compression=compression)
            wire = server.open(Sec_WebSocket_Extensions="permessage-deflate")
            for piece in pieces:
                wire.receive(piece)
            wire.settle()
            outcomes.append((wire.sent, wire.lost is None, wire.protocol.state))
            wire.hang_up()
            server.assert_empty()
        assert outcomes[0] == outcomes[1]


# Over TCP.


class Carrier(Protocol):
    """Carries a peer's bytes over a real connection; `ended` fires with the peer when that is gone."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.ended: Deferred[Peer] = Deferred()

    def connectionMade(self) -> None:
        self.say()

    def say(self, *what: Frame | bytes) -> None:
        assert self.transport is not None
        self.peer.say(*what)
        self.transport.write(self.peer.take())

    def dataReceived(self, data: bytes) -> None:
        self.peer.give(data)
        self.say()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(self.peer)


class TestOverTcp:
    async def converse(self, *what: Frame | bytes, extensions: Any = ()) -> Peer:
        """Say all of it at once, right behind the handshake, and wait for the end of the connection."""
        reactor: Any = global_reactor
        server = EchoServer()
        port = reactor.listenTCP(0, server.factory, interface="127.0.0.1")
        try:
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port, timeout=DEADLINE)
            carrier = await connectProtocol(endpoint, Carrier(Peer(extensions)))
            carrier.say(*what)
            peer = await carrier.ended
        finally:
            await port.stopListening()
        assert peer.is_open
        assert len(server.users) == 0
        return peer

    @pytest_twisted.ensureDeferred
    async def test_messages_of_every_size(self) -> None:
        """Two megabytes in all, in fragments and with pings between them, until the client closes."""
        said = [*fragments(text(MAX_MESSAGE), 1000), *(Frame(BINARY, text(size)) for size in SIZES), Frame(PING, b"p")]
        peer = await self.converse(*said, closing(1000, b"bye"))
        expected = [(TEXT, text(MAX_MESSAGE)), *((BINARY, text(size)) for size in SIZES), (PONG, b"p")]
        assert peer.received[:-1] == expected
        assert peer.close_code == 1000

    @pytest_twisted.ensureDeferred
    async def test_compressed_messages(self) -> None:
        """As `websockets` compresses them, and inflates ours; what it sends before the answer it does not compress."""
        compressed = [raw(deflated(noise(size)), rsv=COMPRESSED) for size in SIZES]
        peer = await self.converse(*compressed, closing(1000), extensions=[DEFLATE])
        assert peer.extensions == 1
        assert peer.received[:-1] == [(TEXT, noise(size)) for size in SIZES]

    @pytest.mark.parametrize(
        ("violation", "code"),
        [
            (raw(b"x", mask=None), 1002),
            (raw(b"x", 3), 1002),
            (raw(b"\xff"), 1007),
            (raw(b"x" * (MAX_MESSAGE + 1)), 1009),
            (closing(1005), 1002),
        ],
        ids=["mask", "opcode", "UTF-8", "large", "close"],
    )
    @pytest_twisted.ensureDeferred
    async def test_a_violation(self, violation: bytes, code: int) -> None:
        """The close reaches the client before the end of the connection, though more was on its way to the server."""
        peer = await self.converse(Frame(TEXT, b"before"), violation, *(Frame(TEXT, b"after") for _ in range(1000)))
        before, close = peer.received
        assert before == (TEXT, b"before")
        assert close[0] == CLOSE
        assert peer.close_code == code
