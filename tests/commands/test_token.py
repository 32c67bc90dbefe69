"""`marketfeed token`: what it signs the daemon accepts, and whatever it cannot sign is one line."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from marketfeed.access.keys import load_keys
from marketfeed.access.tokens import TokenVerifier
from marketfeed.commands import main
from marketfeed.model.identity import Identity, parse_patterns
from tests.tokens import HOUR, NOW, SECRET, jwk, private_key, private_pem, public_bytes, write_jwks

MODE = 0o600


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands still."""
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The file of a secret."""
    path = tmp_path / "key"
    path.write_bytes(SECRET + b"\n")
    return path


def signed(*arguments: str | Path) -> int:
    """Run the command with these arguments; returns its exit status."""
    return main(["token", *map(str, arguments)])


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The token, which is all that there is."""
    assert signed(*arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return out.rstrip("\n")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The line about what cannot be used."""
    assert signed(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("marketfeed token: ")
    return err.removeprefix("marketfeed token: ").rstrip("\n")


def verified(token: str, key: str | None, jwks: str | None = None, **expected: str) -> Identity:
    """Whom the daemon takes its bearer for."""
    keys = load_keys(key, jwks)
    return TokenVerifier(lambda: keys, lambda: NOW, **expected).verify(token)


class TestToken:
    def test_a_token_for_a_user(self, capsys: pytest.CaptureFixture[str], key: Path) -> None:
        """It is good for an hour, and for every public stream."""
        token = printed(capsys, "--key", key, "--user", "alice")
        assert verified(token, str(key)) == Identity("alice", None, NOW + HOUR)
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims == {"sub": "alice", "iat": NOW, "exp": NOW + HOUR}

    def test_everything_that_it_may_say(self, capsys: pytest.CaptureFixture[str], key: Path) -> None:
        """Patterns may come in one list or several; the audience and the issuer are those that the daemon expects."""
        token = printed(
            capsys,
            *("--key", key, "--user", "alice", "--seconds", "60", "--audience", "feed", "--issuer", "me"),
            *("--streams", "depth@*", "orders@${sub}", "--streams", "trade@A"),
        )
        patterns = parse_patterns(["depth@*", "orders@${sub}", "trade@A"], "alice")
        assert verified(token, str(key), audience="feed", issuer="me") == Identity("alice", patterns, NOW + 60)

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_private_keys(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, algorithm: str) -> None:
        """The daemon verifies with the public half, from its own file or by name from a JWKS."""
        private, public = tmp_path / "private.pem", tmp_path / "public.pem"
        private.write_bytes(private_pem(algorithm))
        public.write_bytes(public_bytes(algorithm))
        token = printed(capsys, "--key", private, "--user", "alice", "--kid", "mine")
        assert verified(token, str(public)).user == "alice"
        jwks = write_jwks(tmp_path / "jwks", jwk(algorithm, kid="mine"), jwk("ES256", 1, kid="another"))
        assert verified(token, None, jwks).user == "alice"

    def test_a_user_whose_name_is_no_market(self, capsys: pytest.CaptureFixture[str], key: Path) -> None:
        """The token is good, and a note says what it is not good for."""
        assert signed("--key", key, "--user", "a b") == 0
        out, err = capsys.readouterr()
        assert verified(out.strip(), str(key)).user == "a b"
        assert err.startswith("marketfeed token: --user: this name gets no private stream")
        assert err.count("\n") == 1


class TestNewKey:
    def test_it_is_made_and_used(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """For its owner's eyes only; a note, not on stdout, says that it was made."""
        path = tmp_path / "new"
        assert signed("--new-key", path, "--user", "alice") == 0
        out, err = capsys.readouterr()
        assert verified(out.strip(), str(path)).user == "alice"
        assert err == f"marketfeed token: made {path}; the daemon takes it with --auth-key\n"
        assert stat.S_IMODE(path.stat().st_mode) == MODE
        assert len(path.read_text().strip()) == 64
        assert path.read_text().isascii()

    def test_one_that_exists_is_used(self, capsys: pytest.CaptureFixture[str], key: Path) -> None:
        """And never written to."""
        token = printed(capsys, "--new-key", key, "--user", "alice")
        assert verified(token, str(key)).user == "alice"
        assert key.read_bytes() == SECRET + b"\n"

    def test_it_may_be_made_without_a_token(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """Each is another."""
        assert signed("--new-key", tmp_path / "1") == signed("--new-key", tmp_path / "2") == 0
        assert capsys.readouterr().out == ""
        assert (tmp_path / "1").read_bytes() != (tmp_path / "2").read_bytes()
        assert signed("--new-key", tmp_path / "1") == 0
        assert capsys.readouterr() == ("", "")

    def test_a_wide_umask_does_not_matter(self, tmp_path: Path) -> None:
        """Nobody else may read it at any moment."""
        before = os.umask(0)
        try:
            signed("--new-key", tmp_path / "new")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == MODE


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            ([], "--user: expected the name of the user whom the token is for"),
            (["--user", "alice", "--seconds", "0"], "--seconds: '0' cannot be used; expected a whole number from 1 to"),
            (["--user", "alice", "--seconds", "999999999"], "--seconds: '999999999' cannot be used; expected a whole"),
            (["--user", ""], "the daemon would refuse it: the token's sub is missing or bad: expected a string of 1"),
            (["--user", "\udcff"], "the daemon would refuse it: the token's claims are no JSON object"),
            (
                ["--user", "alice", "--streams", "orders@"],  # as the shell leaves it without single quotes
                "the daemon would refuse it: the token's streams: pattern 1 cannot be used; expected <kind>@<market>",
            ),
            (
                ["--user", "alice", "--streams", *(f"depth@{100 * 'A'}{number}" for number in range(80))],
                "the daemon would refuse it: the token is longer than 8192 characters",
            ),
        ],
    )
    def test_arguments(self, capsys: pytest.CaptureFixture[str], key: Path, arguments: list[str], line: str) -> None:
        """The line names the argument and what would be accepted."""
        assert refused(capsys, "--key", key, *arguments).startswith(line)

    @pytest.mark.parametrize("content", [b"short", b"", b"-----BEGIN nothing", public_bytes("RS256")])
    @pytest.mark.parametrize("option", ["--key", "--new-key"])
    def test_keys(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, content: bytes) -> None:
        """What no daemon could use, and public keys, which sign nothing."""
        path = tmp_path / "key"
        path.write_bytes(content)
        line = refused(capsys, option, path, "--user", "alice")
        assert line.startswith(f"{option}: {path}: ")
        assert "expected" in line
        assert path.read_bytes() == content

    @pytest.mark.parametrize("algorithm", ["RSA of 1024 bits", "ES384", "Ed448"])
    def test_private_keys_of_another_kind(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, algorithm: str
    ) -> None:
        """Those that the daemon would not take."""
        path = tmp_path / "key"
        path.write_bytes(private_pem(algorithm))
        assert "a key of another kind; expected a private key in PEM" in refused(
            capsys, "--key", path, "--user", "alice"
        )

    def test_a_key_with_a_password(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """Nobody is asked for it."""
        path = tmp_path / "key"
        encryption: Any = BestAvailableEncryption(b"password")
        path.write_bytes(private_key("ES256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        assert "expected a private key in PEM without a password" in refused(capsys, "--key", path, "--user", "alice")

    def test_files_that_cannot_be(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """The line has the reason."""
        missing = tmp_path / "missing" / "key"
        expected = f"{missing}: No such file or directory"
        assert refused(capsys, "--key", missing, "--user", "alice") == f"--key: {expected}"
        assert refused(capsys, "--new-key", missing) == f"--new-key: {expected}"
        assert refused(capsys, "--new-key", "a\0b") == r"--new-key: a\x00b: expected the path of a file"

    @pytest.mark.parametrize("arguments", [[], ["--user", "alice"], ["--key", "a", "--new-key", "b"]])
    def test_one_key_must_be_named(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        """Not none, and not two."""
        with pytest.raises(SystemExit) as caught:
            signed(*arguments)
        assert caught.value.code == 2
        assert "--new-key" in capsys.readouterr().err
