"""`marketfeed bench`: what its options ask for, the one line for what cannot be used, and how it ends."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from marketfeed.commands import main
from marketfeed.commands.bench import command
from marketfeed.commands.bench.client import ClientFault
from marketfeed.commands.bench.load import LoadTest
from marketfeed.commands.bench.plan import Plan
from marketfeed.commands.bench.report import Report, lines
from marketfeed.redis.tls import RedisTls
from tests.certificates import Authority
from tests.commands.bench.test_report import REPORT

URL = "ws://localhost:8080"
REDIS = ["--redis-url", "redis://localhost"]
TLS = ["--redis-url", "rediss://localhost"]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """What the command would do, one for each call."""
    made: list[Plan] = []
    monkeypatch.setattr(command, "_test", lambda plan, as_json: made.append(plan) or 0)
    return made


def planned(plans: list[Plan], *arguments: str) -> Plan:
    assert main(["bench", URL, *arguments]) == 0
    return plans.pop()


class TestOptions:
    def test_publishing_is_a_closed_loop_on_one_stream_by_default(self, plans: list[Plan]) -> None:
        """A thousand clients of a made-up trade stream, whose name is not the last test's."""
        plan = planned(plans, *REDIS)
        assert (plan.clients, plan.per_client, plan.window, plan.rate, plan.seconds) == (1000, 1, 16, None, 10.0)
        (stream,) = plan.streams
        assert stream.startswith("trade@BENCH-")
        assert stream != planned(plans, *REDIS).streams[0]

    def test_watching_takes_all_of_the_named_streams(self, plans: list[Plan]) -> None:
        """Each client of each stream, unless fewer are asked for; any kind that the server may know."""
        plan = planned(plans, "--streams", "trade@A, funding@B,trade@A")
        assert (plan.redis, list(plan.streams), plan.per_client) == (None, ["trade@A", "funding@B"], 2)
        assert planned(plans, "--streams", "trade@A,depth@A", "--per-client", "1").per_client == 1

    def test_everything_can_be_said(self, plans: list[Plan], tmp_path: Path) -> None:
        """Each option arrives where it belongs."""
        authority = Authority()
        ca = authority.write(tmp_path / "ca.pem")
        certificate, key = authority.issue("bench").write(tmp_path)
        plan = planned(
            plans,
            *("--redis-url", "rediss://:p@h:7000/2", "--redis-ca", str(ca), "--channel-prefix", "x:"),
            *("--redis-certificate", str(certificate), "--redis-key", str(key)),
            *("--clients", "7", "--stream-count", "20", "--per-client", "5", "--mixed", "--slow", "2", "--compression"),
            *("--token", "abc.def.ghi"),
            *("--rate", "12.5", "--depth", "20", "--payload-bytes", "300", "--messages", "99"),
            *("--seconds", "2.5", "--warm-up", "0", "--server-pid", str(os.getpid())),
        )
        assert (plan.redis and str(plan.redis), plan.channel_prefix) == ("rediss://:***@h:7000/2", "x:")
        assert plan.redis_tls == RedisTls(str(ca), str(certificate), str(key))
        assert (plan.clients, len(plan.streams), plan.per_client, plan.slow, plan.compression) == (7, 20, 5, 2, True)
        assert plan.mixed
        assert {stream.partition("@")[0] for stream in plan.streams} == {"depth"}
        assert (plan.rate, plan.levels, plan.payload_bytes, plan.messages) == (12.5, 20, 300, 99)
        assert not plan.storm
        assert planned(plans, *REDIS, "--rate", "5", "--storm").storm
        assert plan.token == "abc.def.ghi"
        assert (plan.seconds, plan.warm_up, list(plan.server_pids)) == (2.5, 0, [os.getpid()])

    @pytest.mark.parametrize(
        ("url", "options", "resource"),
        [
            ("ws://h", [], "/"),
            ("ws://h/stream?streams=a@b", [], "/stream?streams=a@b"),
            ("ws://h/stream", ["--raw"], "/ws"),
            ("ws://h:81/x?token=1", ["--path", "/stream?token=2"], "/stream?token=2"),
        ],
    )
    def test_the_path_is_the_urls_unless_another_is_named(
        self, plans: list[Plan], url: str, options: list[str], resource: str
    ) -> None:
        """--raw is the path of the dialect without envelopes."""
        assert main(["bench", url, "--streams", "trade@A", *options]) == 0
        assert plans[0].address.resource == resource
        assert plans[0].address.host == "h"

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["ftp://x", "--streams", "trade@A"], "'ftp://x' cannot be used; expected ws://"),
            ([URL], "--streams: expected names such as trade@TATA_INR"),
            ([URL, "--streams", "a@b,,c@d"], "--streams: a name is empty"),
            ([URL, *REDIS, "--streams", "ticker@A"], "--streams: 'ticker@A' cannot be published; expected trade@ or"),
            ([URL, *REDIS, "--streams", "a@trade"], "--streams: 'a@trade' cannot be published"),
            ([URL, *REDIS, "--streams", "trade@A", "--stream-count", "2"], "--stream-count: expected either this or"),
            ([URL, "--streams", "trade@A", "--rate", "5"], "--rate is for publishing, which needs --redis-url"),
            ([URL, *REDIS, "--storm"], "--storm: expected a --rate with it"),
            ([URL, *REDIS, "--storm", "--window", "5"], "--storm: expected a --rate with it"),
            ([URL, "--streams", "trade@A", "--redis-ca", "x"], "--redis-ca is for publishing"),
            ([URL, "--streams", "trade@A", "--redis-key", "x"], "--redis-key is for publishing"),
            ([URL, *REDIS, "--redis-ca", "x"], "--redis-ca: expected together with a rediss:// URL"),
            ([URL, *TLS, "--redis-ca", "no.pem"], "--redis-ca: no.pem: No such file or directory"),
            ([URL, *TLS, "--redis-key", "x"], "--redis-key: expected together with --redis-certificate"),
            ([URL, *TLS, "--redis-certificate", "x"], "--redis-certificate: expected together with --redis-key"),
            ([URL, *TLS, "--redis-certificate", "x", "--redis-key", "no.key"], "--redis-key: no.key: No such file"),
            ([URL, "--redis-url", "http://secret@x"], "--redis-url: the scheme is another"),
            ([URL, "--redis-url", "embedded:"], "--redis-url: embedded: is a daemon's own server"),
            (
                [URL, "--redis-url", "redis-cluster://h"],
                "--redis-url or REDIS_URL: this command connects to one server; expected redis://",
            ),
            ([URL, *REDIS, "--clients", "0"], "--clients: '0' cannot be used; expected a whole number from 1 to 60000"),
            ([URL, *REDIS, "--clients", "²"], "--clients: '²' cannot be used"),
            (
                [URL, *REDIS, "--clients", "5", "--slow", "6"],
                "--slow: '6' cannot be used; expected a whole number from",
            ),
            (
                [URL, *REDIS, "--per-client", "2"],
                "--per-client: '2' cannot be used; expected a whole number from 1 to 1",
            ),
            ([URL, *REDIS, "--rate", "nan"], "--rate: 'nan' cannot be used; expected a number from 0.01 to 1e+06"),
            (
                [URL, *REDIS, "--token", "secret\r\nX: y"],
                "--token: expected a signed token, as `marketfeed token` prints",
            ),
            ([URL, *REDIS, "--seconds", "x\x1b"], "--seconds: 'x\\x1b' cannot be used"),
            ([URL, *REDIS, "--path", "stream"], "--path: 'stream' cannot be used; expected one that begins with /"),
            ([URL, *REDIS, "--server-pid", "2147483648"], "--server-pid: there is nothing known of a process 21474"),
        ],
    )
    def test_what_cannot_be_used_is_one_line(
        self, plans: list[Plan], arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It names the option and what would be accepted; status 2."""
        assert main(["bench", *arguments]) == 2
        out, err = capsys.readouterr()
        assert (out, plans) == ("", [])
        assert err.startswith(f"marketfeed bench: {told}")
        assert err.count("\n") == 1
        assert "secret" not in err

    def test_a_window_and_a_rate_exclude_each_other(self, capsys: pytest.CaptureFixture[str]) -> None:
        """As --raw and --path do."""
        for pair in (["--window", "5", "--rate", "5"], ["--raw", "--path", "/stream"]):
            with pytest.raises(SystemExit) as caught:
                main(["bench", URL, *REDIS, *pair])
            assert caught.value.code == 2
            assert "not allowed with argument" in capsys.readouterr().err


class TestEnds:
    @pytest.fixture
    def tested(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Plan]]:
        """Makes the load test a function, which is given the test itself."""
        plans: list[Plan] = []

        def replace(run: Any) -> list[Plan]:
            def noted(self: LoadTest) -> Report:
                plans.append(self._plan)
                return run(self)  # type: ignore[no-any-return]

            monkeypatch.setattr(LoadTest, "run", noted)
            return plans

        return replace

    def test_a_faultless_test(self, tested: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 0, and the report as lines."""
        tested(lambda test: REPORT)
        assert main(["bench", URL, *REDIS]) == 0
        out, err = capsys.readouterr()
        assert (out.splitlines(), err) == (lines(REPORT), "")

    @pytest.mark.parametrize(
        "fault", [{"lost": 1}, {"duplicated": 1}, {"out_of_order": 1}, {"unasked": 1}, {"closed": {"4008": 1}}]
    )
    def test_a_fault_is_status_1(self, tested: Any, fault: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        """Whatever it was; --json has the whole report as one object."""
        report = msgspec.structs.replace(REPORT, **fault)
        tested(lambda test: report)
        assert main(["bench", URL, *REDIS, "--json"]) == 1
        assert msgspec.json.decode(capsys.readouterr().out, type=Report) == report

    def test_a_test_that_cannot_be_done_is_one_line(self, tested: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """Status 1, and nothing on stdout."""

        def fail(test: LoadTest) -> Report:
            raise ClientFault("cannot reach it\x1b[2J")

        tested(fail)
        assert main(["bench", URL, *REDIS]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("marketfeed bench: cannot reach it")
        assert "\x1b" not in err

    def test_nobody_listens(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The real test says so, and leaves nothing open."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"ws://127.0.0.1:{free.getsockname()[1]}"
            assert main(["bench", url, "--streams", "trade@A"]) == 1
        assert capsys.readouterr().err == f"marketfeed bench: cannot reach {url}/: Connection refused\n"

    def test_more_clients_than_the_system_has_files_for(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is said before the first one connects."""
        monkeypatch.setattr("marketfeed.commands.bench.load.raise_file_limit", lambda: 256)
        assert main(["bench", URL, "--streams", "trade@A", "--clients", "500"]) == 1
        assert "grants 256 open files, too few for 500 clients" in capsys.readouterr().err


def test_the_parser_is_complete() -> None:
    """Every option has help, and none can be abbreviated into another's meaning by accident."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    (actions,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert all(action.help for action in actions.choices["bench"]._actions)
