"""TLS for clients: what a description may say, real handshakes, and renewal between them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import _parse, quoteStringArgument
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock

import marketfeed.runtime.tls
import marketfeed.runtime.tls_files
from marketfeed.runtime.tls import tls_endpoint
from marketfeed.runtime.tls_files import Renewable
from tests.certificates import Authority, ServerCertificate
from tests.conftest import LogCapture
from tests.strategies import property_test
from tests.tls_port import TlsClient, TlsPort

ROOT = Authority()
BELOW = Authority(ROOT)
A_KEY = "a PEM file with an unencrypted private key"
A_CHAIN = "a PEM file of certificates"
DER = Encoding.DER


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class QuietFactory(Factory):
    noisy = False
    protocol = Echo


class Port(TlsPort):
    """What listens where a description says, and echoes."""

    def __init__(self, description: str) -> None:
        super().__init__(description, QuietFactory())

    def connect(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> TlsClient:
        return super().connect(context or trusting(), session)


def trusting(authority: Authority = ROOT) -> ssl.SSLContext:
    """A client that trusts this authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.certificate.public_bytes(DER))
    return context


def lenient(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks this version only, with whatever ciphers there are."""
    context = trusting()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def der(server: ServerCertificate) -> bytes:
    return server.certificate.public_bytes(DER)


@pytest.fixture
def server() -> ServerCertificate:
    """Signed by an authority that clients do not know, below one that they do."""
    return BELOW.issue("localhost")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the test works in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def port(server: ServerCertificate, here: Path) -> Port:
    """A port with this certificate, as full chain."""
    server.write(here)
    return Port("ssl:8443:privateKey=server.key:certKey=server.pem")


class TestHandshake:
    @pytest.mark.parametrize(
        ("files", "rest"),
        [
            ({"k": "key", "c": "leaf+between"}, "privateKey=k:certKey=c"),
            ({"k": "key", "c": "leaf", "x": "between"}, "privateKey=k:certKey=c:extraCertChain=x"),
            ({"k": "key", "c": "leaf+between", "x": "between"}, "privateKey=k:certKey=c:extraCertChain=x"),
            ({"all": "key+leaf+between"}, "privateKey=all"),
            ({"all": "leaf+between+key"}, "privateKey=all:certKey=all"),
            ({"a:b\\=": "key", "c=d": "leaf+between"}, r"privateKey=a\:b\\=:certKey=c=d"),
            ({"k": "key", "c": "leaf+between"}, r"k:c"),
        ],
        ids=["full chain", "chain apart", "both", "one file", "one file, named twice", "odd names", "by position"],
    )
    def test_the_whole_chain_is_sent(
        self, files: dict[str, str], rest: str, server: ServerCertificate, here: Path
    ) -> None:
        """Once: a client who knows the root only trusts the server."""
        parts = {"key": server.pem_key(), "leaf": server.pem, "between": server.pem_between}
        for name, content in files.items():
            (here / name).write_bytes(b"".join(parts[part] for part in content.split("+")))
        client = Port(f"ssl:8443:{rest}").connect(lenient(ssl.TLSVersion.TLSv1_2))
        assert client.certificate == der(server)
        assert client.echo(b"hello") == b"hello"
        assert client.received.count(der(server)) == 1
        assert client.received.count(BELOW.certificate.public_bytes(DER)) == 1

    def test_a_chain_that_lacks_its_middle_is_not_trusted(self, server: ServerCertificate, here: Path) -> None:
        """Which shows that the tests above see what they claim to see."""
        (here / "all").write_bytes(server.pem_key() + server.pem)
        with pytest.raises(ssl.SSLCertVerificationError):
            Port("ssl:8443:privateKey=all").connect()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_what_is_spoken(self, version: ssl.TLSVersion, port: Port) -> None:
        """TLS 1.2 and 1.3."""
        assert port.connect(lenient(version)).echo(b"hello") == b"hello"

    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    def test_what_is_not_spoken(self, version: ssl.TLSVersion, port: Port) -> None:
        """Anything older: the server says so."""
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            port.connect(lenient(version))

    def test_ciphers(self, here: Path) -> None:
        """One with forward secrecy comes first, whatever the client prefers; without a certificate or key, none."""
        BELOW.issue("localhost", key=rsa.generate_private_key(65537, 2048)).write(here)
        port = Port("ssl:8443:privateKey=server.key:certKey=server.pem")
        context = lenient(ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
        assert port.connect(context).tls.cipher()[0] == "ECDHE-RSA-AES128-GCM-SHA256"  # type: ignore[index]
        context.set_ciphers("AECDH-AES128-SHA:ECDHE-RSA-NULL-SHA:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError, match="ALERT_HANDSHAKE_FAILURE"):
            port.connect(context)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_who_comes_back_is_known(self, version: ssl.TLSVersion, port: Port) -> None:
        """By a ticket, which saves the signature; only until the certificate is renewed."""
        context = lenient(version)
        client = port.connect(context)
        client.echo(b"the ticket of TLS 1.3 comes with it")
        again = port.connect(context, client.tls.session)
        assert again.tls.session_reused
        assert again.echo(b"hello") == b"hello"
        BELOW.issue("localhost").write(Path())
        port.reactor.advance(2)
        renewed = port.connect(context, client.tls.session)
        assert not renewed.tls.session_reused
        assert renewed.echo(b"hello") == b"hello"

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    @pytest.mark.parametrize("offered", [["http/1.1"], ["h2", "http/1.1"], ["http/1.1", "http/1.0"]])
    def test_the_protocol_is_agreed_on(self, version: ssl.TLSVersion, offered: list[str], port: Port) -> None:
        """Browsers, curl and Node say which ones they speak (RFC 7301)."""
        context = lenient(version)
        context.set_alpn_protocols(offered)
        client = port.connect(context)
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        assert client.echo(b"hello") == b"hello"

    def test_who_offers_no_protocol_is_told_none(self, port: Port) -> None:
        """And speaks HTTP/1.1 all the same."""
        client = port.connect()
        assert client.tls.selected_alpn_protocol() is None
        assert client.echo(b"hello") == b"hello"

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_other_protocols_are_refused(self, version: ssl.TLSVersion, port: Port) -> None:
        """In the words of RFC 7301, section 3.2; the next client is none the wiser."""
        context = lenient(version)
        context.set_alpn_protocols(["h2", "smtp"])
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            port.connect(context)
        assert port.connect().echo(b"hello") == b"hello"

    @pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
    def test_the_kinds_of_keys(self, key: Any, here: Path) -> None:
        """RSA, and another curve."""
        server = BELOW.issue("localhost", key=key)
        server.write(here)
        client = Port("ssl:8443:privateKey=server.key:certKey=server.pem").connect()
        assert client.certificate == der(server)


def checks_only(kind: str) -> ssl.SSLContext:
    """A client that can check signatures of keys of this kind, in TLS 1.2."""
    context = lenient(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"ECDHE-{kind}-AES128-GCM-SHA256:@SECLEVEL=0")
    return context


class TestTwoKeys:
    RSA = BELOW.issue("localhost", key=rsa.generate_private_key(65537, 2048))
    EC = BELOW.issue("localhost")

    @pytest.fixture
    def port(self, here: Path) -> Port:
        """A port with either kind of key."""
        self.write(self.RSA, here / "rsa")
        self.write(self.EC, here / "ec")
        return Port(
            "ssl:8443:privateKey=rsa/server.key:certKey=rsa/server.pem:privateKey2=ec/server.key:certKey2=ec/server.pem"
        )

    def write(self, server: ServerCertificate, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        server.write(directory)

    def test_each_client_gets_what_it_can_check(self, port: Port) -> None:
        """With the chain that goes with it; who can check both gets the EC key."""
        assert port.connect(checks_only("RSA")).certificate == der(self.RSA)
        assert port.connect(checks_only("ECDSA")).certificate == der(self.EC)
        assert port.connect().certificate == der(self.EC)

    def test_either_is_renewed(self, port: Port, here: Path) -> None:
        """And the earlier end of the two is what operators are told."""
        renewed = BELOW.issue("localhost")
        self.write(renewed, here / "ec")
        assert shows(port, renewed)
        assert port.connect(checks_only("RSA")).certificate == der(self.RSA)

    def test_two_of_one_kind(self, here: Path) -> None:
        """OpenSSL would keep the second."""
        self.write(self.EC, here / "one")
        self.write(BELOW.issue("localhost"), here / "two")
        rest = "certKey=one/server.pem:privateKey2=two/server.key:certKey2=two/server.pem"
        with pytest.raises(ValueError, match=r".") as caught:
            Port(f"ssl:8443:privateKey=one/server.key:{rest}")
        assert str(caught.value) == (
            "privateKey2: two/server.key: the key is of the same kind as that in privateKey; expected one of another "
            "kind, EC beside RSA"
        )

    def test_files_of_the_second_that_cannot_be_used(self, here: Path) -> None:
        """Are named by their fields."""
        self.write(self.EC, here)
        whole = "ssl:8443:privateKey=server.key:certKey=server.pem"
        short = BELOW.issue("localhost", key=rsa.generate_private_key(65537, 1024))
        self.write(short, here / "short")
        faults = []
        for rest in ("certKey2=x", "privateKey2=x", "privateKey2=short/server.key:certKey2=short/server.pem"):
            with pytest.raises(ValueError, match=r".") as caught:
                Port(f"{whole}:{rest}")
            faults.append(str(caught.value))
        assert faults == [
            f"privateKey2: missing; expected {A_KEY}, for there is certKey2",
            f"privateKey2: x: No such file or directory; expected {A_KEY}",
            "certKey2: short/server.pem: ee key too small; expected a certificate that OpenSSL accepts",
        ]


def shows(port: Port, server: ServerCertificate) -> bool:
    """Whether a connection, after the next look at the files, still gets this certificate."""
    port.reactor.advance(2)
    client = port.connect()
    return client.certificate == der(server) and client.echo(b"hello") == b"hello"


class TestRenewal:
    def lines(self, logged: LogCapture) -> list[str]:
        return [
            event["log_format"].format(**event)
            for event in logged.events
            if "certificate" in str(event.get("log_format"))
        ]

    def test_new_connections_get_it_and_old_ones_go_on(
        self, port: Port, server: ServerCertificate, here: Path, logged: LogCapture
    ) -> None:
        """The files are looked at every two seconds at most."""
        old = port.connect()
        renewed = BELOW.issue("localhost")
        renewed.write(here)
        port.reactor.advance(1.9)
        assert port.connect().certificate == der(server)
        port.reactor.advance(0.1)
        new = port.connect()
        assert new.certificate == der(renewed)
        assert (new.echo(b"new"), old.echo(b"old")) == (b"new", b"old")
        until = renewed.certificate.not_valid_after_utc.date()
        assert self.lines(logged) == [f"TLS: new connections get the renewed certificate, valid until {until}"]
        assert old.certificate == der(server)
        latest = BELOW.issue("localhost")
        latest.write(here)
        assert port.connect().certificate == der(renewed)
        assert shows(port, latest)

    def test_files_that_stay_are_not_read_again(
        self, port: Port, server: ServerCertificate, logged: LogCapture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However often somebody connects."""
        monkeypatch.setattr(Renewable, "_load", None)
        assert shows(port, server)
        assert shows(port, server)
        assert not self.lines(logged)

    def test_a_directory_that_is_swapped(self, server: ServerCertificate, here: Path) -> None:
        """As certbot and Kubernetes do it, with symbolic links; and though sizes and times are the same."""
        renewed = BELOW.issue("localhost", key=server.key)
        for name, certificate in (("one", server), ("two", renewed)):
            (here / name).mkdir()
            for path in certificate.write(here / name):
                path.write_bytes(path.read_bytes().ljust(4096, b"\n"))
                os.utime(path, ns=(10**18, 10**18))
        (here / "live").symlink_to("one")
        port = Port("ssl:8443:privateKey=live/server.key:certKey=live/server.pem")
        assert shows(port, server)
        (here / "next").symlink_to("two")
        (here / "next").rename(here / "live")
        assert shows(port, renewed)

    def test_a_renewal_that_comes_in_two_steps(
        self, port: Port, server: ServerCertificate, here: Path, logged: LogCapture
    ) -> None:
        """In between, key and certificate do not fit: the old ones stay, which is said once."""
        renewed = BELOW.issue("localhost")
        (here / "server.key").write_bytes(renewed.pem_key())
        assert shows(port, server)
        assert shows(port, server)
        assert self.lines(logged) == [
            f"TLS: the certificate in use stays, for its renewal is unfit: certKey: {here / 'server.pem'}: its first "
            "certificate is not of the key in privateKey; expected that one"
        ]
        (here / "server.pem").write_bytes(renewed.pem + renewed.pem_between)
        assert shows(port, renewed)
        assert len(self.lines(logged)) == 2

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda path, server: path.unlink(), "No such file or directory"),
            (lambda path, server: path.write_bytes(b""), "no certificates can be read"),
            (lambda path, server: path.write_bytes(server.pem[:-30]), "no certificates can be read"),
            (lambda path, server: path.write_bytes((server.pem + server.pem_between)[:-30]), "not all of its"),
            (lambda path, server: (path.unlink(), path.mkdir()), "Is a directory"),
        ],
        ids=["gone", "empty", "half", "half a chain", "a directory"],
    )
    def test_what_cannot_be_used_changes_nothing(
        self,
        damage: Callable[[Path, ServerCertificate], Any],
        says: str,
        port: Port,
        server: ServerCertificate,
        here: Path,
        logged: LogCapture,
    ) -> None:
        """And is said once, and again when it happens again after a good one."""
        path = here / "server.pem"
        for count in (1, 2):
            damage(path, server)
            assert shows(port, server)
            assert shows(port, server)
            assert len(self.lines(logged)) == 2 * count - 1
            assert says in self.lines(logged)[-1]
            if path.is_dir():
                path.rmdir()
            server.write(here)
            assert shows(port, server)
            assert "get the renewed certificate" in self.lines(logged)[-1]

    def test_a_process_that_goes_elsewhere(
        self, port: Port, server: ServerCertificate, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As twistd does with --rundir: paths mean what they meant at the start."""
        (here / "elsewhere").mkdir()
        monkeypatch.chdir(here / "elsewhere")
        assert shows(port, server)
        renewed = BELOW.issue("localhost")
        renewed.write(here)
        assert shows(port, renewed)

    def test_another_fault_is_another_line(self, port: Port, server: ServerCertificate, logged: LogCapture) -> None:
        """The latest line tells what is wrong now."""
        Path("server.pem").unlink()
        assert shows(port, server)
        Path("server.key").unlink()
        assert shows(port, server)
        assert [line.split(": ")[2] for line in self.lines(logged)] == ["certKey", "privateKey"]

    def test_a_broken_file_is_read_until_it_is_good(self, port: Port, server: ServerCertificate, here: Path) -> None:
        """A clock of the file system that is too coarse to show the last change does no lasting harm."""
        path = here / "server.pem"
        renewed = BELOW.issue("localhost", key=server.key)
        whole = renewed.pem + renewed.pem_between
        path.write_bytes(b"-" * len(whole))
        os.utime(path, ns=(10**18, 10**18))
        assert shows(port, server)
        path.write_bytes(whole)
        os.utime(path, ns=(10**18, 10**18))
        assert shows(port, renewed)


class TestDescription:
    def test_what_it_says(self, server: ServerCertificate, here: Path) -> None:
        """Where to listen is Twisted's business; so are the defaults."""
        server.write(here)
        port = Port("ssl:8443:privateKey=server.key:certKey=server.pem")
        assert (port.number, port.backlog, port.interface) == (8443, 50, "")
        port = Port(r"ssl:port=0:backlog=4096:interface=\:\::certKey=server.pem:privateKey=server.key")
        assert (port.number, port.backlog, port.interface) == (0, 4096, "::")

    @pytest.mark.parametrize(
        ("description", "says"),
        [
            ("ssl:8443", f"privateKey: missing; expected {A_KEY}"),
            ("ssl:8443:certKey=c", f"privateKey: missing; expected {A_KEY}"),
            ("ssl:8443:privateKey=", f"privateKey: missing; expected {A_KEY}"),
            ("ssl:privateKey=k", "port: missing; expected a number from 0 to 65535"),
            ("ssl::privateKey=k", "port: missing; expected a number from 0 to 65535"),
            ("ssl:https:privateKey=k", "port: https; expected a number from 0 to 65535"),
            ("ssl:65536:privateKey=k", "port: 65536; expected a number from 0 to 65535"),
            ("ssl:\u0661:privateKey=k", "port: \u0661; expected a number from 0 to 65535"),
            ("ssl:1:privateKey=k:backlog=0", "backlog: 0; expected a number from 1 to 65535"),
            ("ssl:1:privateKey=k:backlog=", "backlog: missing; expected a number from 1 to 65535"),
            (
                "ssl:1:privateKey=k:certkey=c",
                "certkey: unknown; expected port, privateKey, certKey, extraCertChain, privateKey2, certKey2, "
                "extraCertChain2, interface or backlog",
            ),
            (
                "ssl:1:privateKey=k:sslmethod=TLSv1_METHOD",
                "sslmethod: unknown; expected port, privateKey, certKey, extraCertChain, privateKey2, certKey2, "
                "extraCertChain2, interface or backlog",
            ),
            ("ssl:1:k:c:x", "'x': expected a name before it, as in certKey=server.pem"),
            ("ssl:1:privateKey=k\\", "it ends with a backslash; expected a character behind it"),
        ],
    )
    def test_what_cannot_be_read(self, description: str, says: str) -> None:
        """One line, which names the field, and no file has been looked for."""
        with pytest.raises(ValueError, match=r".") as caught:
            tls_endpoint(MemoryReactorClock(), description)
        assert str(caught.value) == says

    @given(st.lists(st.tuples(st.text("abc=", max_size=3), st.text(max_size=8))))
    @property_test
    def test_values_are_quoted_as_twisted_does_it(self, fields: list[tuple[str, str]]) -> None:
        """Any value can be given."""
        pairs = [(name.replace("=", ""), value) for name, value in fields]
        parts = [
            f"{name}={quoteStringArgument(value)}" if name else quoteStringArgument(value) for name, value in pairs
        ]
        if not any("=" in value for name, value in pairs if not name):
            assert list(marketfeed.runtime.tls._arguments(":".join(["ssl", *parts]))) == [("", "ssl"), *pairs]

    @given(st.text(st.sampled_from("ab:=\\\n"), max_size=20))
    @property_test
    def test_it_is_read_as_twisted_reads_it(self, rest: str) -> None:
        """Also where it is odd; but an argument without a name stays one, as in `=value`."""
        description = f"ssl:{rest}"
        try:
            theirs = _parse(description)
        except RuntimeError:
            with pytest.raises(ValueError, match="ends with a backslash"):
                list(marketfeed.runtime.tls._arguments(description))
            return
        ours = list(marketfeed.runtime.tls._arguments(description))
        if "" not in theirs[1]:
            assert ([value for name, value in ours if not name], {n: v for n, v in ours if n}) == theirs


class TestFiles:
    def fault(
        self, here: Path, description: str = "ssl:1:privateKey=k:certKey=c:extraCertChain=x", **files: bytes
    ) -> str:
        for name, content in files.items():
            (here / name).write_bytes(content)
        with pytest.raises(ValueError, match=r".") as caught:
            tls_endpoint(MemoryReactorClock(), description)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_files_that_are_not_there(self, server: ServerCertificate, here: Path) -> None:
        """Each is named with its field."""
        gone = "No such file or directory"
        assert self.fault(here) == f"privateKey: k: {gone}; expected {A_KEY}"
        assert self.fault(here, k=server.pem_key()) == f"certKey: c: {gone}; expected {A_CHAIN}"
        assert self.fault(here, c=server.pem) == f"extraCertChain: x: {gone}; expected {A_CHAIN}"

    def test_a_path_that_is_none(self, here: Path) -> None:
        """It is shown in a form that a terminal can bear."""
        assert self.fault(here, "ssl:1:privateKey=a\0b\n") == f"privateKey: a\\x00b\\n: no path; expected {A_KEY}"

    @pytest.mark.parametrize(
        "content", [b"", b"\xff", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    )
    def test_what_is_no_key(self, content: bytes, server: ServerCertificate, here: Path) -> None:
        """Nor PEM at all, or broken; or a certificate."""
        for text in (content, server.pem):
            assert self.fault(here, k=text, c=server.pem) == f"privateKey: k: no key can be read; expected {A_KEY}"

    def test_an_encrypted_key(self, server: ServerCertificate, here: Path) -> None:
        """Nobody is there to be asked for its password."""
        fault = self.fault(here, k=server.pem_key(b"secret"), c=server.pem)
        assert fault == f"privateKey: k: the key is encrypted; expected {A_KEY}"

    def test_what_is_no_certificate(self, server: ServerCertificate, here: Path) -> None:
        """The key in its place, for one."""
        fault = self.fault(here, k=server.pem_key(), c=server.pem_key())
        assert fault == f"certKey: c: no certificates can be read; expected {A_CHAIN}"
        fault = self.fault(here, c=server.pem, x=b"nothing")
        assert fault == f"extraCertChain: x: no certificates can be read; expected {A_CHAIN}"

    def test_a_chain_that_is_cut_anywhere(self, server: ServerCertificate, here: Path) -> None:
        """Is not taken for a whole one, but where the cut makes it look like one that is shorter."""
        (here / "k").write_bytes(server.pem_key())
        whole = (server.pem + server.pem_between).rstrip()
        looks_whole = range(len(server.pem) - 1, len(server.pem) + len("-----BEGIN CERTIFICATE"))
        for length in range(len(whole)):
            (here / "c").write_bytes(whole[:length])
            if length in looks_whole:
                tls_endpoint(MemoryReactorClock(), "ssl:1:privateKey=k:certKey=c")
            else:
                assert "certificates can be read" in self.fault(here, "ssl:1:privateKey=k:certKey=c")

    def test_a_certificate_of_another_key(self, server: ServerCertificate, here: Path) -> None:
        """Or one that does not stand first, or of a key that cannot sign."""
        says = "certKey: c: its first certificate is not of the key in privateKey; expected that one"
        assert self.fault(here, k=BELOW.issue("localhost").pem_key(), c=server.pem) == says
        assert self.fault(here, k=server.pem_key(), c=server.pem_between + server.pem) == says
        key = x25519.X25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        assert self.fault(here, k=pem, c=server.pem) == says

    def test_a_key_of_an_unknown_kind(
        self, server: ServerCertificate, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Counts as one that does not fit."""
        monkeypatch.setattr(marketfeed.runtime.tls_files, "load_pem_private_key", lambda text, password: object())
        assert "not of the key in privateKey" in self.fault(here, k=server.pem_key(), c=server.pem)

    def test_a_short_key(self, here: Path) -> None:
        """What OpenSSL has against it is told in its words."""
        server = BELOW.issue("localhost", key=rsa.generate_private_key(65537, 1024))
        fault = self.fault(here, k=server.pem_key(), c=server.pem, x=server.pem_between)
        assert fault == "certKey: c: ee key too small; expected a certificate that OpenSSL accepts"

    @pytest.mark.parametrize("error", [ssl.SSLError(), OSError(), RuntimeError("anything")])
    def test_whatever_else_is_wrong(
        self, error: Exception, server: ServerCertificate, here: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is one line as well."""

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", fail)
        fault = self.fault(here, k=server.pem_key(), c=server.pem, x=server.pem_between)
        assert fault.startswith("certKey: c: ")
        assert fault.endswith("; expected a certificate that OpenSSL accepts")
