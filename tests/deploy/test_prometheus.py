"""Prometheus with its files of deploy/: it scrapes two real daemons, evaluates every alert, and some become true."""

from __future__ import annotations

import json
import shutil
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted

from tests.certificates import Authority
from tests.deploy.files import DEPLOY, read_yaml
from tests.deploy.test_monitoring import expressions, names, of_panels, rules
from tests.system.admin_port import ADMIN, AdminPort
from tests.system.harness import DaemonProcess, Harness, trade
from tests.system.test_bridge import Bridge
from tests.system.test_candles import service

PROMETHEUS = shutil.which("prometheus")


class Prometheus(DaemonProcess):
    """Prometheus, and what it answers."""

    harness: Harness

    @classmethod
    async def of(cls, harness: Harness, *targets: str, bridge: str, candles: str) -> Prometheus:
        """One that runs with the files of deploy/, but for the addresses of the daemons and of the two services."""
        files = harness.directory / "prometheus"
        shutil.copytree(DEPLOY / "prometheus", files)
        (files / "targets" / "marketfeed.yml").write_text(json.dumps([{"targets": targets}]), encoding="utf-8")
        (files / "targets" / "bridge.yml").write_text(json.dumps([{"targets": [bridge]}]), encoding="utf-8")
        (files / "targets" / "candles.yml").write_text(json.dumps([{"targets": [candles]}]), encoding="utf-8")
        assert PROMETHEUS is not None
        own = [f"--config.file={files / 'prometheus.yml'}", f"--storage.tsdb.path={harness.directory / 'tsdb'}"]
        made = cls(harness.spawn([PROMETHEUS, *own, "--web.listen-address=127.0.0.1:0"]))
        made.harness = harness
        made.port = int((await made.expect(r"Listening on.*address=127\.0\.0\.1:(\d+)"))[1])
        await made.expect("Server is ready to receive web requests")
        return made

    async def ask(self, path: str) -> Any:
        """What the API has at this path."""
        status, _, body = await self.harness.http(self, f"GET /api/v1/{path} HTTP/1.0\nHost: localhost")
        assert status == 200, body
        answer = json.loads(body)
        assert answer["status"] == "success"
        assert "warnings" not in answer
        return answer["data"]

    async def has(self, expression: str) -> bool:
        """Whether an expression has a value."""
        return bool((await self.ask(f"query?query={quote(expression)}"))["result"])

    async def have(self, asked: list[str]) -> bool:
        """Whether all of them have."""
        return all([await self.has(expression) for expression in asked])

    async def alerts(self) -> dict[str, Any]:
        """Each rule of an alert, by its name."""
        (group,) = (await self.ask("rules?type=alert"))["groups"]
        return {rule["name"]: rule for rule in group["rules"]}

    async def were_evaluated(self) -> bool:
        """Whether all rules were, without a fault."""
        found = await self.alerts()
        assert all(rule["health"] in ("ok", "unknown") for rule in found.values()), found
        return all(rule["health"] == "ok" for rule in found.values())

    async def firing(self) -> list[str]:
        """The alerts that fire."""
        return [name for name, rule in (await self.alerts()).items() if rule["state"] == "firing"]

    async def fires(self, alert: str) -> bool:
        return alert in await self.firing()

    async def suspects(self, alert: str, instance: str) -> bool:
        """Whether an alert is pending or firing for a daemon."""
        active = (await self.alerts())[alert]["alerts"]
        return instance in [each["labels"].get("instance") for each in active]


@pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed")
@pytest_twisted.ensureDeferred
async def test_it_scrapes_daemons_and_evaluates_every_alert(harness: Harness) -> None:
    """Nothing that alerts or the dashboard ask for is missing; an engine, Redis and a daemon that end are noticed.

    So are a bridge and a candle service that have lost Redis, and that the certificate is for some days only.
    """
    redis = await harness.redis()
    engine = await redis.connect()
    settings = harness.directory / "marketfeed.toml"
    settings.write_text("[streams.ticker]\nsilence = 1\n", encoding="utf-8")
    certificate, key = Authority().issue("127.0.0.1").write(harness.directory)
    tls = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    one = await harness.daemon(*ADMIN, "--config", str(settings), "--workers", "1", redis=redis)
    two = await harness.daemon(*ADMIN, "--port", tls, redis=redis)
    targets = [f"127.0.0.1:{(await AdminPort.of(daemon)).port}" for daemon in (one, two)]
    copier = await Bridge.start(harness, redis.url)
    bridge = f"127.0.0.1:{copier.port}"
    maker = await AdminPort.of(DaemonProcess(service(harness, redis, *ADMIN)))
    candles = f"127.0.0.1:{maker.port}"
    prometheus = await Prometheus.of(harness, *targets, bridge=bridge, candles=candles)
    client = await harness.client(one)
    await client.subscribe("trade@A")
    await engine.publish("trade@A", trade("A"))
    assert (await client.next())["stream"] == "trade@A"

    used = sorted({name for expression in expressions() for name in names(expression)} - {"ALERTS"})
    shown = [expression.replace("$instance", ".+") for expression in of_panels()]
    await harness.eventually(lambda: prometheus.have([*used, *shown]))
    await harness.eventually(prometheus.were_evaluated)
    found = await prometheus.alerts()
    assert list(found) == [rule["alert"] for rule in rules()]
    await harness.eventually(lambda: prometheus.fires("CertificateExpires"))
    assert await prometheus.firing() == ["CertificateExpires"]
    assert [rule["lastError"] for rule in found.values() if rule.get("lastError")] == []

    await client.subscribe("ticker@A")
    await harness.eventually(lambda: prometheus.suspects("EngineSilent", targets[0]))
    await redis.kill()
    await harness.eventually(lambda: prometheus.suspects("SourceDown", targets[1]))
    await harness.eventually(lambda: prometheus.suspects("BridgeAway", bridge))
    await harness.eventually(lambda: prometheus.suspects("CandlesAway", candles))
    assert not await prometheus.suspects("SourceDown", bridge)
    await two.stop("KILL")
    await harness.eventually(lambda: prometheus.suspects("NotReady", targets[1]))
    assert not await prometheus.suspects("NotReady", targets[0])


@pytest_twisted.ensureDeferred
async def test_the_names_of_compose_are_answered(harness: Harness) -> None:
    """Prometheus asks by them there; whoever asks by another name gets nothing."""
    told = read_yaml("compose.yaml")["services"]["one"]["environment"]
    (scraped,) = read_yaml("prometheus/targets/marketfeed.yml")
    admin = await AdminPort.of(await harness.daemon(*ADMIN, "--admin-host", told["MARKETFEED_ADMIN_HOST"]))
    hosts = (*scraped["targets"], "three:8081")
    assert [(await admin.ask(harness, "/metrics", host))[0] for host in hosts] == [200, 200, 421]
