"""The documentation as far as it can be checked by reading. `tests/system/test_docs.py` executes the rest of it."""

from __future__ import annotations

import argparse
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from marketfeed.commands import bridge, candles, simulate, token
from marketfeed.commands.bench import command as bench
from marketfeed.commands.check import command as check
from marketfeed.commands.check.features import FEATURES
from marketfeed.commands.recording import record, replay
from marketfeed.commands.recording.format import read_line, write_record
from marketfeed.commands.status import command as status
from marketfeed.config.options import OPTIONS, Option
from marketfeed.config.settings import DEFAULTS, Settings, load
from marketfeed.model.kinds import BUILT_IN
from marketfeed.model.markets import Market
from marketfeed.redis.address import RedisAddress
from marketfeed.wire.close_codes import CLOSE_REASONS
from marketfeed.wire.messages import ErrorCode
from tests.docs_runner import (
    DOCUMENTS,
    ROOT,
    Block,
    Moments,
    anchors,
    blocks,
    commands,
    inline_code,
    is_for_the_machine,
    links,
    matches,
    mentions,
    read_message,
    steps,
    tables,
)

EXECUTED = ("transcript", "sh", "html", "js", "python", "nginx", "haproxy", "log", "status")
READ = ("toml", "env", "diagram", "jsonl", "logrotate")


def goals() -> set[str]:
    """What `make` can be asked for."""
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def options_of_commands() -> set[str]:
    """The options of the commands that have documents of their own."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    for command in (bench, bridge, candles, check, record, replay, simulate, status, token):
        command.add_parser(subparsers)
    return {
        option
        for command in subparsers.choices.values()
        for action in command._actions
        for option in action.option_strings
        if option.startswith("--")
    }


def extras() -> set[str]:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return set(setup["options.extras_require"])


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_block_is_of_a_kind_that_is_tested(block: Block) -> None:
    """An example that no test knows what to do with is not in the documentation."""
    assert block.kind in (*EXECUTED, *READ), f"{block}: the kind is {block.kind!r}"


class TestDocuments:
    @pytest.mark.parametrize("document", DOCUMENTS)
    def test_links_lead_somewhere(self, document: str) -> None:
        """Every link is relative, and its file and heading exist."""
        for link in links(document):
            name, _, anchor = link.partition("#")
            target = (ROOT / document).parent / name if name else ROOT / document
            assert target.is_file(), f"{document}: {link}"
            if anchor:
                assert anchor in anchors(str(target.resolve().relative_to(ROOT))), f"{document}: {link}"

    @pytest.mark.parametrize(
        "directory", ["marketfeed", "tests", "benchmarks", "examples", "schemas", "tools", "twisted", "stubs"]
    )
    def test_what_docstrings_and_comments_cite_exists(self, directory: str) -> None:
        """Every document that a Python file names is there, with the heading."""
        known = {document: anchors(document) for document in DOCUMENTS}
        for path in (ROOT / directory).rglob("*.py"):
            for mention in mentions(path):
                document, _, anchor = mention.partition("#")
                assert document in known, f"{path}: {mention}"
                assert not anchor or anchor in known[document], f"{path}: {mention}"

    @pytest.mark.parametrize("document", DOCUMENTS)
    def test_options_and_goals_that_the_prose_names_exist(self, document: str) -> None:
        """What stands between backquotes and looks like an option of the daemon, or a goal of make, is one."""
        known = {f"--{option.flag}" for option in OPTIONS}
        known |= options_of_commands()
        known |= {"--json", "--logfile", "--syslog", "--uid", "--gid", "--pidfile", "--help", "--version"}
        known |= {"--no-throttle", "--experimental-websocket", "--bind"}  # of tests.autobahn, and of Node
        for code in inline_code(document):
            for option in re.findall(r"--[a-z][a-z-]*", code):
                assert option in known, f"{document}: {code}"
            if code.startswith("make "):
                assert code.split()[1] in goals(), f"{document}: {code}"

    def test_the_picture_is_what_its_script_draws(self) -> None:
        """The picture in README shows what the command shows today."""
        drawn = subprocess.run(
            [sys.executable, str(ROOT / "tools" / "picture.py")],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        )
        assert drawn.stdout == (ROOT / "docs" / "images" / "watch.svg").read_bytes()


class TestTables:
    def table(self, document: str, *header: str) -> list[list[str]]:
        found = [table.rows for table in tables(document) if table.header == list(header)]
        assert len(found) == 1, f"{document}: {len(found)} tables with the header {header}"
        return found[0]

    def test_close_codes(self) -> None:
        """The table of close codes is the one that the daemon closes by."""
        rows = self.table("docs/protocol.md", "code", "meaning", "client should")
        assert rows == [[str(reason.code), reason.meaning, reason.advice] for reason in CLOSE_REASONS]

    def test_error_codes(self) -> None:
        """Every error code is explained, under its own name."""
        rows = self.table("docs/protocol.md", "code", "name", "when")
        assert [row[:2] for row in rows] == [[str(int(code)), f"`{code.name}`"] for code in ErrorCode]

    def test_features(self) -> None:
        """What an engine's fields allow is what `marketfeed check` goes by, word for word."""
        rows = self.table("docs/market-data.md", "kind", "what the engine writes", "with it", "without")
        assert rows == [[each.kind, each.written, each.allows, each.otherwise] for each in FEATURES]

    def test_options(self) -> None:
        """Every option is explained, with its variable and its default."""
        rows = self.table("docs/operations/options.md", "option", "variable", "default", "meaning")
        expected = [[f"`--{option.flag}`", f"`{option.environment}`", _default(option)] for option in OPTIONS]
        assert sorted(row[:3] for row in rows) == sorted(expected)


def _default(option: Option) -> str:
    """An option's default as the table spells it."""
    if option.flag in ("redis-host", "redis-port"):
        return str(getattr(RedisAddress(), option.flag.removeprefix("redis-")))
    default = DEFAULTS.get(option.field)
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return "–" if default in (None, "", (), {}) else str(default)  # noqa: RUF001


class TestSettings:
    @pytest.mark.parametrize("block", blocks("toml"), ids=str)
    def test_toml(self, block: Block, tmp_path: Path) -> None:
        """A file that is shown can be used, and each of its lines has its effect."""
        path = tmp_path / "marketfeed.toml"
        path.write_text(block.text, encoding="utf-8")
        settings, unset = load({"config": str(path)}, {}), Settings()
        for name, value in tomllib.loads(block.text).items():
            if name == "redis_url":
                assert str(settings.redis) == value.removesuffix("/0")
            elif name == "streams":
                built_in = {kind.name: kind.loss.value for kind in BUILT_IN}
                assert {kind.name: (kind.loss.value, kind.private, kind.ids) for kind in settings.kinds} == {
                    kind: (table.get("loss") or built_in[kind], table.get("private", False), table.get("ids"))
                    for kind, table in value.items()
                }
            elif name == "markets":
                assert {market.name: market for market in settings.markets} == {
                    market: Market(market, **table) for market, table in value.items()
                }
            elif isinstance(value, list):
                assert [str(each) for each in getattr(settings, name)] == value
            else:
                assert str(getattr(settings, name)) == str(value)
                assert value == 8080 or getattr(settings, name) != getattr(unset, name), f"{block}: {name} is no news"

    @pytest.mark.parametrize("block", blocks("env"), ids=str)
    def test_environment(self, block: Block) -> None:
        """A file of variables that is shown can be used; each is a variable of ours."""
        variables = dict(line.split("=", 1) for line in block.text.splitlines())
        assert variables.keys() <= {option.environment for option in OPTIONS}
        load({}, variables)


class TestLogrotate:
    @pytest.mark.skipif(shutil.which("logrotate") is None, reason="there is no logrotate here")
    @pytest.mark.parametrize("block", blocks("logrotate"), ids=str)
    def test_a_file_is_understood(self, block: Block, tmp_path: Path) -> None:
        path = tmp_path / "marketfeed"
        path.write_text(block.text, encoding="utf-8")
        path.chmod(0o644)
        read = subprocess.run(["logrotate", "--debug", path], capture_output=True, text=True, check=False)
        assert read.returncode == 0, read.stderr
        assert "error" not in read.stderr


class TestRecordings:
    @pytest.mark.parametrize("block", blocks("jsonl"), ids=str)
    def test_lines(self, block: Block) -> None:
        """A recording looks like that, to the byte."""
        for line in block.text.splitlines():
            assert write_record(read_line(line.encode())) == line.encode() + b"\n", f"{block}: {line}"


class TestCommands:
    @pytest.mark.parametrize("block", blocks("sh"), ids=str)
    def test_what_is_not_executed_could_be(self, block: Block) -> None:
        """Goals of make, extras, packages and services are those that exist."""
        for command in filter(is_for_the_machine, commands(block)):
            verb, *words = command.split()
            if verb == "make":
                assert words[0] in goals()
            elif verb == "apt-get":
                assert words[:2] == ["install", "-y"]
                assert set(words[2:]) <= {"python3-venv", "make", "redis-server"}
            elif verb.endswith("/pip"):
                assert words[0] == "install"
                assert words[1] == "." or set(re.findall(r"\[(\w+)\]", words[1])) <= extras()
            elif verb == "systemctl":
                assert words[0] in ("enable", "kill", "reload", "restart", "stop")
                assert words[-1] in ("marketfeed", "nginx")
            elif verb in ("cp", "docker", "kubectl"):
                paths = [word for word in words if word.startswith("deploy/")]
                assert all((ROOT / path).exists() for path in paths), f"{block}: {command}"
            elif verb == "ln":
                assert words == ["-sfn", "/opt/marketfeed-0.2", "/opt/marketfeed"]
            else:
                venv = r"python3 -m venv /opt/marketfeed(-0\.2)?"
                assert command == "nginx -t" or re.fullmatch(venv, command), f"{block}: {command}"


class TestDiagrams:
    @pytest.mark.parametrize("block", blocks("diagram"), ids=str)
    def test_modules_that_are_named_exist(self, block: Block) -> None:
        """A name that ends in .py is a module's, and stands below its directory where one is named."""
        for directory, name in re.findall(r"([a-z]+/)?([a-z_]+\.py)", block.text):
            assert list((ROOT / "marketfeed").rglob(f"{directory}{name}")), f"{block}: {directory}{name}"

    def test_the_tree_is_the_tree(self) -> None:
        """Whoever reads the list of rooms knows all of them, and what is in each; a command's modules are its own."""
        (rooms,) = (block for block in blocks("diagram") if block.text.startswith("marketfeed/"))
        package = ROOT / "marketfeed"
        paths = (path.relative_to(package).as_posix() for path in package.rglob("*.py"))
        modules = {path for path in paths if "__" not in path and not path.startswith("commands/")}
        named, room = set(), ""
        for indent, name in re.findall(r"^( +)(\S+)  ", rooms.text, re.MULTILINE):
            room = room if len(indent) == 4 else name
            named.add(name if name == room else room + name)
        assert named == modules | {f"{path.split('/')[0]}/" for path in modules if "/" in path} | {"commands/"}


class TestNames:
    """What the pages for those who change marketfeed name in their prose."""

    @pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
    def test_modules_and_classes_that_are_named_exist(self, document: str) -> None:
        """A path that ends in .py is below the package or the checkout; a name in capitals is a class or a type."""
        source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "marketfeed").rglob("*.py"))
        for code in inline_code(document):
            if re.fullmatch(r"[a-z_/]+\.py", code):
                assert (ROOT / "marketfeed" / code).is_file() or (ROOT / code).is_file(), f"{document}: {code}"
            elif re.fullmatch(r"[A-Z][a-z]\w+", code):
                assert re.search(rf"^(class )?{code}\b", source, re.MULTILINE), f"{document}: {code}"

    def test_the_order_of_the_rooms_is_the_one_that_is_held(self) -> None:
        """From the top, rooms that stand side by side between two semicolons, as the contract has them."""
        text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
        (told,) = re.findall(r"From the top: ([^.]+)\.", text)
        contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
        layers = [set(layer.split(" | ")) for layer in contract["contracts"][0]["layers"]]
        assert [set(re.findall(r"`(\w+)`", layer)) for layer in told.split(";")] == layers


class TestTranscripts:
    """The language of transcripts does not let a wrong example pass."""

    @pytest.mark.parametrize("block", blocks("transcript"), ids=str)
    def test_it_can_be_read_and_says_what_is_received(self, block: Block) -> None:
        """Every line is a step, and there is something to compare."""
        assert {"expect", "status", "closed"} & {step.verb for step in steps(block)}

    @pytest.mark.parametrize(
        ("written", "received"),
        [
            ('{"a":1}', '{"a":2}'),
            ('{"a":1}', '{"a":"1"}'),
            ('{"a":1}', '{"a":1,"b":2}'),
            ('{"a":1,"b":2}', '{"a":1}'),
            ('{"a":true}', '{"a":1}'),
            ('{"a":1000.50}', '{"a":1000.5}'),
            ('{"a":"1000.50"}', '{"a":"1000.5"}'),
            ('{"a":[1]}', '{"a":[1,2]}'),
            ('{"a":"from … on"}', '{"a":"from 1"}'),
            ('{"a":"…"}', '{"a":1}'),
            ('{"a":"<x>"}', '{"a":1}'),
            ('{"a":1,…}', '{"b":1}'),
            ('{"a":1,…}', '{"a":2,"b":1}'),
            ('["<x>","<x>"]', '["1","2"]'),
            ('{"a":1790000000000}', '{"a":17}'),
            ('{"a":1790000000000,"b":1790000000000}', '{"a":1800000000000,"b":1800000000001}'),
            ('{"a":1790000000000,"b":1790000000007}', '{"a":1800000000001,"b":1800000000000}'),
        ],
    )
    def test_what_differs_is_told_apart(self, written: str, received: str) -> None:
        """Another value, another spelling of a number, a field too many or too few, moments out of order."""
        assert not matches(read_message(written), read_message(received), Moments())

    @pytest.mark.parametrize(
        ("written", "received"),
        [
            ('{"a":1,"b":[null,"…"]}', '{"b":[null,"anything"],"a":1}'),
            ('{"a":…}', '{"a":{"b":1}}'),
            ('[{"a":1,…},{"a":…, …}]', '[{"a":1,"b":[2]},{"a":1}]'),
            ('["<x>","<y>","<x>"]', '["1","2","1"]'),
            ('[…,"…, …"]', '[1,"this, that"]'),
            (
                '{"a":1790000000000,"b":1790000000007,"c":1790000000000}',
                '{"a":1800000000000,"b":1800000003007,"c":1800000000000}',
            ),
        ],
    )
    def test_what_may_differ_matches(self, written: str, received: str) -> None:
        """Anything where an ellipsis stands, and any moment where the same one stands for the same one."""
        assert matches(read_message(written), read_message(received), Moments())
