"""Alerts and dashboard: Prometheus reads them, they ask for metrics that there are, the runbook knows each alert."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, read_yaml, run
from tests.docs_runner import anchors, metrics

PROMETHEUS = DEPLOY / "prometheus"
OF_EVERY_PROCESS = {"process_cpu_seconds_total", "process_open_fds", "process_resident_memory_bytes"}
OF_EVERY_PROCESS |= {"process_start_time_seconds"}
OF_PROMETHEUS = {"up", "ALERTS"}
OF_EVERY_TARGET = {"job", "instance"}
_WORDS = {"and", "bool", "by", "group_left", "ignoring", "offset", "on", "or", "unless", "without"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml("prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/marketfeed.json").read_text(encoding="utf-8"))
    return found


def of_panels() -> list[str]:
    """What the panels of the dashboard ask for."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def expressions() -> list[str]:
    """Everything that Prometheus is asked."""
    board, asked = dashboard(), of_panels()
    asked += [annotation["expr"] for annotation in board["annotations"]["list"]]
    asked += [variable["query"]["query"] for variable in board["templating"]["list"]]
    return asked + [rule["expr"] for rule in rules()]


def table(document: str = "docs/operations/health.md") -> dict[str, set[str]]:
    """The metrics of a document, as Prometheus names their series, with the labels of each."""
    found = {}
    for name, (kind, labels) in metrics(document).items():
        if kind == "histogram":
            found |= {f"{name}_{part}": labels | {"le"} for part in ("bucket", "count", "sum")}
        else:
            found[name] = labels
    return found


def names(expression: str) -> set[str]:
    """The metrics of an expression: the words that are neither labels, strings, functions nor operators."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[\w+\]', "", expression)
    bare = re.sub(r"\b(by|on|ignoring|without|group_left) *\([^)]*\)", "", bare)
    bare = re.sub(r"label_values\((\w+), \w+\)", r"\1", bare)
    return set(re.findall(r"\b[a-zA-Z_]\w*\b(?! *\()", bare)) - _WORDS


class TestMetrics:
    def test_names_are_found(self) -> None:
        """By a rule that is tested itself."""
        asked = 'sum by (job, le) (rate(a_total{code="4008"}[5m])) * 60 > on (job) group_left () 3 * clamp_min(b, 1)'
        assert names(asked) == {"a_total", "b"}
        assert names("label_values(c, instance)") == {"c"}

    @pytest.mark.parametrize("expression", expressions())
    def test_they_are_those_of_the_table(self, expression: str) -> None:
        """Nothing is asked for that neither a daemon, a bridge nor a candle service has, and no label of it."""
        known = table() | table("docs/operations/workers.md")
        for document in ("docs/streams.md", "docs/market-data.md"):
            known |= table(document)
        used = names(expression)
        assert used
        assert used <= known.keys() | OF_EVERY_PROCESS | OF_PROMETHEUS
        for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+) *(?:=|!=|=~|!~) *\"", matchers))
            allowed = known.get(name, {"alertstate"}) | OF_EVERY_TARGET
            assert labels <= allowed, name

    def test_the_dashboard_shows_nearly_all(self) -> None:
        """But for what is there to be divided by, to be looked up, or for alerts."""
        shown = {name for expression in of_panels() for name in names(expression)}
        shown |= {f"{name.removesuffix('_bucket')}_{part}" for name in shown for part in ("count", "sum")}
        hidden = {name.removeprefix("marketfeed_") for name in table().keys() - shown}
        assert hidden == {
            *("streams_limit", "history_bytes_limit", "files_limit", "book_levels", "build_info", "draining"),
            *("flush_clients_bucket", "flush_clients_count", "flush_clients_sum", "clock_skew_total"),
            *("source_last_message_timestamp_seconds", "certificate_expiry_timestamp_seconds"),
            *("last_reload_successful", "last_reload_timestamp_seconds"),
        }


class TestAlerts:
    def test_prometheus_reads_its_files(self) -> None:
        """And those that they name."""
        run("promtool", "check", "config", "prometheus.yml", cwd=PROMETHEUS)

    def test_each_fires_when_it_should_and_not_otherwise(self) -> None:
        """As alerts_test.yml has it, both for every alert."""
        run("promtool", "test", "rules", "alerts_test.yml", cwd=PROMETHEUS)
        tested: dict[str, set[bool]] = {}
        for test in read_yaml("prometheus/alerts_test.yml")["tests"]:
            for case in test["alert_rule_test"]:
                tested.setdefault(case["alertname"], set()).add("exp_alerts" in case)
        assert tested == {rule["alert"]: {True, False} for rule in rules()}

    def test_the_runbook_knows_each(self) -> None:
        """Under its name, which is where the alert itself leads; and it knows no others."""
        alerts = [rule["alert"] for rule in rules()]
        assert [rule["annotations"]["runbook"] for rule in rules()] == [
            f"docs/operations/runbook.md#{alert.lower()}" for alert in alerts
        ]
        assert anchors("docs/operations/runbook.md") - {"runbook"} == {alert.lower() for alert in alerts}

    def test_each_says_how_urgent_it_is(self) -> None:
        """For now, or for today."""
        assert {rule["labels"]["severity"] for rule in rules()} == {"page", "ticket"}


class TestDashboard:
    def test_every_panel_has_a_place_of_its_own(self) -> None:
        """And a number, a title, and words that say what it shows."""
        panels = dashboard()["panels"]
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert all(panel["title"] and panel["description"] for panel in panels)

    def test_its_source_is_the_one_that_is_provisioned(self) -> None:
        """By its id, on every panel."""
        (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
        used = {panel["datasource"]["uid"] for panel in dashboard()["panels"]}
        assert used == {source["uid"]}
