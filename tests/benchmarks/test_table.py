"""The page and the chart of the benchmarks, from results that are made up, and the order in which they are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import msgspec
import pytest

from benchmarks import run as runner
from benchmarks.chart import Bar, Panel, bar_chart
from benchmarks.processes import PEERS, ROOT, Cores, Stage
from benchmarks.results import FIGURES, Results, Run, figures_of, ratio
from benchmarks.table import chart, markdown, number, quote
from benchmarks.workloads import OURS, SERVERS, WORKLOADS, Server, clients_of, workload_options
from marketfeed.commands import main
from marketfeed.commands.bench import command
from marketfeed.commands.bench.plan import Plan
from marketfeed.commands.bench.report import Report
from marketfeed.runtime.file_limit import room_for_connections
from tests.benchmarks.test_climb import step
from tests.commands.bench.test_report import REPORT

SVG = "{http://www.w3.org/2000/svg}"


def report(deliveries: float, cpu: float, *, busy: float = 0.5, server: float = 0.95, lost: int = 0) -> Report:
    """A report of so many deliveries a second, at so many µs each."""
    assert REPORT.server is not None
    return msgspec.structs.replace(
        REPORT,
        deliveries_per_second=deliveries,
        generator_busy=busy,
        lost=lost,
        storm_seconds=cpu,
        server=msgspec.structs.replace(REPORT.server, cpu=server, cpu_per_delivery=cpu),
    )


def results(*runs: Run) -> Results:
    return Results("2026-11-23", "make bench", {"Processor": "a|b"}, {"Node": "20.1.2"}, 10.0, 3, True, list(runs))


def rounds(workload: str, server: str, *reports: Report) -> list[Run]:
    return [Run(workload, server, place, one) for place, one in enumerate(reports, 1)]


@pytest.fixture
def measured() -> Results:
    """Three rounds of each server under each workload: a machine that slows down while it is measured."""
    runs: list[Run] = []
    for workload in WORKLOADS:
        runs += rounds(workload.key, OURS, report(4_120_000, 0.24), report(3_000_000, 0.3), report(2e6, 0.4))
        if workload.has_compiled:
            runs += rounds(workload.key, "compiled", report(4e6, 0.35), report(2_900_000, 0.32), report(1.9e6, 0.42))
        runs += rounds(workload.key, "uws", report(4_000_000, 0.2), report(3_100_000, 0.25), report(1.6e6, 0.5))
        runs += rounds(workload.key, "ws", report(200_000, 4.0), report(182_345, 5.0), report(1e5, 6.0, lost=7))
    return results(*runs)


def row(page: str, title: str, server: str) -> list[str]:
    """The cells of a server's row under a heading."""
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    (line,) = (line for line in section.splitlines() if line.startswith((f"| {server} |", f"| **{server}** |")))
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestPage:
    def test_a_cell_is_the_median_with_the_least_and_the_most(self, measured: Results) -> None:
        """And the best of a column stands out, whoever has it."""
        page = markdown(measured)
        cells = row(page, "One hot stream, as fast as it goes", "marketfeed")
        assert cells[:3] == ["marketfeed", "3.00 M (2.00 M to 4.12 M)", "0.300 (0.240 to 0.400)"]
        cells = row(page, "One hot stream, as fast as it goes", "uWebSockets.js")
        assert cells[:3] == ["uWebSockets.js", "**3.10 M** (1.60 M to 4.00 M)", "**0.250** (0.200 to 0.500)"]
        cells = row(page, "One hot stream, as fast as it goes", "Node ws")
        assert cells[:3] == ["Node ws", "182,000 (100,000 to 200,000)", "5.00 (4.00 to 6.00)"]

    def test_a_ratio_is_the_median_of_the_rounds_own(self, measured: Results) -> None:
        """It is not that of the medians: those of different rounds do not compare."""
        assert ratio(measured, "hot-closed", "uws", FIGURES["deliveries"]) == pytest.approx(4.12 / 4.0)
        assert row(markdown(measured), "One hot stream, as fast as it goes", "uWebSockets.js")[5] == "1.03"
        assert row(markdown(measured), "One hot stream, paced", "uWebSockets.js")[-3] == "1.20"

    def test_faults_are_shown(self, measured: Results) -> None:
        """Of all rounds together."""
        page = markdown(measured)
        assert row(page, "Order books, paced", "Node ws")[-2:] == ["7", "50%"]
        assert row(page, "Order books, paced", "marketfeed")[-3:] == ["", "0", "50%"]

    @pytest.mark.parametrize(
        ("ours", "theirs", "shown"),
        [
            (report(2e6, 1), report(1e6, 1), ("**2.00 M**", "1.00 M", "2.00")),
            (report(2e6, 1, busy=0.95, server=0.7), report(1e6, 1), ("≥ **2.00 M**", "1.00 M", "≥ 2.00")),
            (report(2e6, 1), report(1e6, 1, busy=0.95, server=0.7), ("**2.00 M**", "≥ 1.00 M", "≤ 2.00")),
            (
                report(2e6, 1, busy=0.95, server=0.7),
                report(1e6, 1, busy=0.95, server=0.7),
                ("≥ **2.00 M**", "≥ 1.00 M", "not known"),
            ),
            (report(2e6, 1, busy=0.95, server=0.97), report(1e6, 1), ("**2.00 M**", "1.00 M", "2.00")),
        ],
    )
    def test_a_load_generator_without_time_to_spare_makes_a_lower_bound(
        self, ours: Report, theirs: Report, shown: tuple[str, str, str]
    ) -> None:
        """Unless the server had none either; and a ratio is no more certain than its parts."""
        page = markdown(results(*rounds("hot-closed", OURS, ours), *rounds("hot-closed", "ws", theirs)))
        title = "One hot stream, as fast as it goes"
        assert row(page, title, "marketfeed")[1].startswith(shown[0])
        assert row(page, title, "Node ws")[1].startswith(shown[1])
        assert row(page, title, "Node ws")[5] == shown[2]

    def test_handshakes_have_a_load_of_their_own(self) -> None:
        """While the clients connect, it is another than while they are idle."""
        busy = msgspec.structs.replace(report(0, 0), generator_busy_connecting=0.97)
        found = figures_of([busy], FIGURES["connects"])
        assert found is not None
        assert found.is_lower_bound
        page = markdown(results(*rounds("idle", OURS, busy)))
        assert row(page, "Idle clients and handshakes", "marketfeed")[-1] == "97%"

    def test_the_page_says_how_it_was_made(self, measured: Results) -> None:
        """The command, the machine, the date, the versions, and each workload's own command."""
        page = " ".join(markdown(measured).split())
        for expected in ("`make bench`", "3 rounds", "10 seconds", "pinned to one core", "| Date | 2026-11-23 |"):
            assert expected in page
        assert "| Processor | a\\|b |" in page
        assert "| Node | 20.1.2 |" in page
        assert page.count("`marketfeed bench --clients ") == len(WORKLOADS)
        assert "images/benchmarks.svg" in page

    def test_without_peers_there_is_nothing_to_compare(self) -> None:
        """A machine without Node has a page all the same, of what was measured."""
        page = markdown(results(*rounds("books", OURS, report(1e5, 2.0))))
        assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [
            "Order books, paced",
            "The servers",
            "How it was measured",
        ]
        assert "uWebSockets.js**" not in page
        assert "None" not in page

    def test_what_was_not_measured_is_said(self) -> None:
        """No delivery has no cost."""
        silent = msgspec.structs.replace(report(0, 0), latency_ms=None, server=None)
        page = markdown(results(*rounds("hot-paced", OURS, silent), *rounds("hot-paced", "ws", silent)))
        assert row(page, "One hot stream, paced", "Node ws")[1:7] == ["n/a"] * 5 + [""]

    def test_no_line_of_text_is_wider_than_the_editor(self, measured: Results) -> None:
        """Tables and the one-line texts of a workload excepted."""
        method = markdown(measured).split("## How it was measured")[1]
        assert all(len(line) <= 120 for line in method.splitlines() if not line.startswith("|"))

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            (0, "0.00"),
            (0.2434, "0.243"),
            (9.998, "10.0"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1,000"),
            (182_345, "182,000"),
            (4_120_000, "4.12 M"),
        ],
    )
    def test_numbers_have_three_figures(self, value: float, shown: str) -> None:
        """More would be noise."""
        assert number(value) == shown


class TestChart:
    def test_it_has_a_panel_for_each_workload_and_a_bar_for_each_server(self, measured: Results) -> None:
        """Ours in its own colour, the longest bar the greatest median."""
        root = ElementTree.fromstring(chart(measured))
        bars = [element for element in root.iter(f"{SVG}rect") if "bar" in element.attrib["class"]]
        assert len(bars) == len(WORKLOADS) * 3 + sum(workload.has_compiled for workload in WORKLOADS)
        ours = len(WORKLOADS) + sum(workload.has_compiled for workload in WORKLOADS)
        assert sum(element.attrib["class"] == "bar ours" for element in bars) == ours
        texts = [element.text for element in root.iter(f"{SVG}text")]
        for workload in WORKLOADS:
            assert workload.title in texts
        assert "3.00 M" in texts
        widths = [float(element.attrib["width"]) for element in bars[:3]]
        assert widths[1] == max(widths)
        assert widths[0] / widths[1] == pytest.approx(3.0 / 3.1, rel=0.01)

    def test_everything_lies_on_the_paper(self, measured: Results) -> None:
        """Bars and the beginnings of texts."""
        root = ElementTree.fromstring(chart(measured))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for element in [*root.iter(f"{SVG}text"), *root.iter(f"{SVG}rect")]:
            x, y = float(element.attrib.get("x", 0)), float(element.attrib.get("y", 0))
            assert 0 <= x <= x + float(element.attrib.get("width", 0)) <= width
            assert 0 <= y <= y + float(element.attrib.get("height", 0)) <= height

    def test_no_bar_lies_on_the_name_of_its_server(self, measured: Results) -> None:
        """Of which a letter is about 7 wide."""
        root = ElementTree.fromstring(chart(measured))
        names = [each for each in root.iter(f"{SVG}text") if each.attrib["class"] == "label"]
        bars = [each for each in root.iter(f"{SVG}rect") if "bar" in each.attrib["class"]]
        for name, bar in zip(names, bars, strict=True):
            assert name.text is not None
            assert float(name.attrib["x"]) + 7 * len(name.text) <= float(bar.attrib["x"]), name.text

    def test_any_text_is_escaped(self) -> None:
        """It stays one document, with the text in it."""
        drawn = bar_chart("<&>", [Panel("a<b", "&", [Bar("<script>", 0.0, "0 > -1")])], "]]>")
        texts = [element.text for element in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
        assert texts == ["a<b", "&", "<script>", "0 > -1", "]]>"]


class TestRunner:
    def test_servers_take_turns(self) -> None:
        """A B C A B C for each workload: what compares was measured side by side."""
        order = [(key.key, server.key, place) for place, key, server in runner._order(2, WORKLOADS[:2], SERVERS[::2])]
        first, second = WORKLOADS[0].key, WORKLOADS[1].key
        ours, theirs = SERVERS[0].key, SERVERS[2].key
        assert order == [
            (key, server, place) for key in (first, second) for place in (1, 2) for server in (ours, theirs)
        ]

    @pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.key)
    def test_each_workload_is_one_that_the_load_generator_understands(
        self, workload: runner.Workload, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its options are taken, and its figures exist."""
        plans: list[Plan] = []
        monkeypatch.setattr(command, "_test", lambda plan, as_json: plans.append(plan) or 0)
        options = workload_options(workload, clients=50, seconds=5, warm_up=1)
        redis = ["--redis-url", "unix:///s"] if workload.publishes else []
        assert main(["bench", "ws://h", *options, *redis]) == 0
        assert plans[0].clients == 50
        assert clients_of(workload) == int(workload.options[workload.options.index("--clients") + 1]) >= 20
        assert set(workload.figures) <= set(FIGURES)
        assert workload.climbs == (workload.figures[0] == "clients")

    def test_the_page_can_be_drawn_again_from_what_was_kept(
        self, measured: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same results make the same bytes."""
        kept = {
            "RESULTS": "benchmarks/results.json",
            "PAGE": "docs/b.md",
            "CHART": "docs/images/b.svg",
            "README": "README.md",
        }
        for name, path in kept.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            monkeypatch.setattr(runner, name, tmp_path / path)
        monkeypatch.setattr(runner, "ROOT", tmp_path)
        (tmp_path / "README.md").write_text("a\n<!-- benchmarks -->\nold\n<!-- end of benchmarks -->\nz\n")
        measured.save(tmp_path / "benchmarks/results.json")
        before = (tmp_path / "benchmarks/results.json").read_bytes()
        assert runner.main(["--table-only"]) == 0
        assert (tmp_path / "docs/b.md").read_text(encoding="utf-8") == markdown(measured)
        text = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert text == f"a\n<!-- benchmarks -->\n{quote(measured)}<!-- end of benchmarks -->\nz\n"
        assert (tmp_path / "docs/images/b.svg").read_text(encoding="utf-8") == chart(measured)
        assert (tmp_path / "benchmarks/results.json").read_bytes() == before

    def test_what_is_compiled_is_measured_where_that_tells(self) -> None:
        """Once a round, beside the same server without."""
        order = [(workload, server.key) for _, workload, server in runner._order(1, WORKLOADS, SERVERS)]
        assert [workload for workload, server in order if server == "compiled"] == [
            workload for workload in WORKLOADS if workload.has_compiled
        ]
        assert [workload for workload, server in order if server == OURS] == list(WORKLOADS)

    def test_a_server_that_was_not_measured_has_an_empty_cell(self) -> None:
        """In README's table, whose columns are all servers."""
        kept = results(*rounds("books", OURS, report(1, 2.0)), *rounds("few-watch", "ws", report(1, 3.0)))
        lines = quote(kept).splitlines()
        assert lines[0] == "|  |  | marketfeed | Node ws |"
        assert [line.split(" | ")[2:] for line in lines[2:4]] == [["", "**3.00** |"], ["**2.00**", " |"]]

    def test_without_results_there_is_no_page(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One line says so."""
        monkeypatch.setattr(runner, "RESULTS", tmp_path / "results.json")
        assert runner.main(["--table-only"]) == 1
        assert capsys.readouterr().err.startswith("benchmarks: [Errno 2] No such file or directory")

    def test_a_machine_without_node_or_a_compiler_measures_without_them(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One line each says why."""
        monkeypatch.setattr("benchmarks.processes.shutil.which", lambda name: None)
        monkeypatch.setattr(runner, "build_compiled", lambda: "there is no C compiler")
        asked: list[tuple[str, str]] = []

        def one(*what: object, **_: object) -> Run:
            _, _, workload, server, _ = what
            asked.append((workload.key, server.key))  # type: ignore[attr-defined]
            return Run(workload.key, server.key, 1, report(1e5, 2.0))  # type: ignore[attr-defined]

        monkeypatch.setattr(runner, "_one", one)
        assert runner.main(["--quick", "--only", "books"]) == 0
        out, err = capsys.readouterr()
        assert asked == [("books", OURS)]
        assert err.splitlines()[:2] == [
            "without the peers: node and npm are not installed",
            "without the compiled one: there is no C compiler",
        ]
        assert "## Order books, paced" in out

    @pytest.mark.parametrize("is_quick", [False, True])
    def test_clients_are_raised_on_fresh_servers(self, is_quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each step has one of its own, and lasts less long than a run does otherwise; a glance has its few clients."""
        asked: list[tuple[int, str]] = []
        started: list[str] = []

        class Scene:
            @contextmanager
            def server(self, server: Server, *, tls: bool) -> Iterator[tuple[int, int]]:
                started.append(server.key)
                yield 1, 2

            def load(self, port: int, pid: int, options: list[str], *, publishes: bool, tls: bool) -> Report:
                clients = int(options[options.index("--clients") + 1])
                asked.append((clients, options[options.index("--seconds") + 1]))
                return step(clients, 150.0 if clients > 3000 else 20.0)

        monkeypatch.setattr(runner, "_most_clients", lambda: 10_000)
        (workload,) = (each for each in WORKLOADS if each.key == "carried")
        run = runner._one(cast(Stage, Scene()), 1, workload, SERVERS[0], 7.0, is_quick=is_quick)
        assert len(started) == len(asked)
        if is_quick:
            assert asked == [(100, "4")]
            assert run.report.clients == 100
        else:
            assert asked[:3] == [(1000, "4"), (2000, "4"), (4000, "4")]
            assert 2700 <= run.report.clients <= 3000

    def test_the_load_generator_has_room_for_so_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And the server: by its files, and by the ports that a system gives clients of one address."""
        monkeypatch.setattr(runner, "raise_file_limit", lambda: 50_000)
        monkeypatch.setattr(runner, "_read", lambda path: "32768\t60999\n")
        assert runner._most_clients() == 60999 - 32768
        monkeypatch.setattr(runner, "_read", lambda path: "")
        assert runner._most_clients() == room_for_connections(50_000)[0]

    def test_the_peers_have_exact_versions_and_their_programs(self) -> None:
        """The same packages wherever this is repeated."""
        manifest = msgspec.json.decode((PEERS / "package.json").read_bytes())
        assert set(manifest["dependencies"]) == {"redis", "uwebsockets", "ws"}
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", text) for text in manifest["dependencies"].values())
        assert all((PEERS / server.script).exists() for server in SERVERS if server.script)
        ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
        assert "/benchmarks/peers/node_modules/" in ignored

    @pytest.mark.parametrize(("usable", "cores"), [({0, 1}, (1, 0)), ({2, 5, 7}, (7, 5)), ({3}, (None, None))])
    def test_the_server_has_a_core_of_its_own(
        self, usable: set[int], cores: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where there are two."""
        monkeypatch.setattr("benchmarks.processes.os.sched_getaffinity", lambda pid: usable, raising=False)
        found = Cores.found()
        assert (found.server, found.load) == cores
        assert found.pinned == (len(usable) > 1)


def test_the_kept_page_is_the_one_that_its_results_make() -> None:
    """Nobody edits docs/benchmarks.md, or forgets to draw it again."""
    if not runner.RESULTS.exists():
        pytest.skip("nothing has been measured yet")
    kept = Results.load(runner.RESULTS)
    assert runner.PAGE.read_text(encoding="utf-8") == markdown(kept)
    assert runner.CHART.read_text(encoding="utf-8") == chart(kept)
    readme = runner.README.read_text(encoding="utf-8")
    assert quote(kept) in readme
    assert runner.quoted(readme, kept) == readme


def test_a_text_without_marks_stays_as_it_is() -> None:
    """Somebody has taken the table out."""
    assert runner.quoted("text", results()) == "text"
