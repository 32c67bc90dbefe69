"""The image, and what runs it: read by the linters of each, and compared with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from marketfeed.config.settings import Settings
from tests.deploy.files import DEPLOY, ROOT, read_yaml, run

DOCKERFILE = DEPLOY / "Dockerfile"
KUBERNETES = DEPLOY / "kubernetes"
RESOURCES = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")


def instructions(name: str) -> list[str]:
    """What stands behind each instruction of this name, of the last stage."""
    stage = DOCKERFILE.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    return re.findall(rf"^{name} (.+)$", stage, re.MULTILINE)


class TestImage:
    def test_it_is_linted(self) -> None:
        """Hadolint has nothing to say."""
        run("hadolint", DOCKERFILE)

    def test_nothing_is_copied_that_is_ignored(self) -> None:
        """What the first stage copies exists, and is what the build is given."""
        given = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
        assert sorted(given) == sorted(name for names in copied for name in names.split())
        assert all((ROOT / name).exists() for name in given)

    def test_the_last_stage_installs_nothing(self) -> None:
        """It has what the first one made, and a user; no package, and so no compiler, is added."""
        assert [each.split()[0] for each in instructions("RUN")] == ["useradd"]
        assert instructions("COPY") == ["--from=build /opt/marketfeed /opt/marketfeed"]
        assert instructions("USER") == ["10001:10001"]


class TestCompose:
    @pytest.fixture
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = read_yaml("compose.yaml")["services"]
        return found

    def test_it_is_as_its_schema_says(self) -> None:
        """That of Compose itself."""
        run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")

    def test_its_images_have_versions(self, services: dict[str, Any]) -> None:
        """But for the one that is built here."""
        images = {service["image"] for service in services.values()} - {"marketfeed"}
        assert len(images) == 4
        assert all(re.search(r":v?\d+\.\d+", image) for image in images)

    def test_every_file_that_it_mounts_is_there(self, services: dict[str, Any]) -> None:
        """In deploy/, read only."""
        mounted = [each for service in services.values() for each in service.get("volumes", []) if each[0] == "."]
        assert len(mounted) == 4
        for each in mounted:
            path, _, mode = each.split(":")
            assert (DEPLOY / path).is_dir()
            assert mode == "ro"

    def test_a_daemon_is_let_end(self, services: dict[str, Any]) -> None:
        """Its drain is shorter than what it is given; it may write nowhere, and has no capability."""
        for name in ("one", "two"):
            daemon = services[name]
            assert float(daemon["stop_grace_period"].removesuffix("s")) > Settings().drain_seconds + 5
            assert daemon["read_only"]
            assert daemon["cap_drop"] == ["ALL"]

    def test_the_names_that_others_use_are_those_of_services(self, services: dict[str, Any]) -> None:
        """HAProxy's and Prometheus' targets are the daemons, and Grafana's is Prometheus."""
        proxied = services["haproxy"]["environment"].values()
        (scraped,) = read_yaml("prometheus/targets/marketfeed.yml")
        (source,) = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
        assert {each.partition(":")[0] for each in (*proxied, *scraped["targets"])} == {"one", "two"}
        assert services["one"]["environment"]["MARKETFEED_ADMIN_HOST"] == "one,two"
        assert source["url"] == "http://prometheus:9090"
        assert "prometheus" in services


class TestHaproxy:
    def test_it_reads_its_file(self) -> None:
        """With the variables that compose gives it."""
        told = read_yaml("compose.yaml")["services"]["haproxy"]["environment"]
        variables = {
            name: value.replace("one:", "127.0.0.1:").replace("two:", "127.0.0.2:") for name, value in told.items()
        }
        run("haproxy", "-c", "-q", "-f", DEPLOY / "haproxy" / "haproxy.cfg", **variables)


class TestKubernetes:
    @pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.stem)
    def test_it_is_as_its_schema_says(self, path: Path) -> None:
        """Nothing is unknown. What is not Kubernetes' own has no schema there."""
        if "monitoring.coreos.com" in path.read_text(encoding="utf-8"):
            pytest.skip("the Prometheus operator's")
        run("kubernetes-validate", "--strict", "--no-warn", path)

    def test_the_kustomization_has_every_file(self) -> None:
        """And each file is one resource, for the same pods."""
        kustomization = read_yaml("kubernetes/kustomization.yaml")
        assert sorted(kustomization["resources"]) == [path.name for path in RESOURCES]
        (generated,) = kustomization["configMapGenerator"]
        assert [(KUBERNETES / name).exists() for name in generated["envs"]] == [True]
        label = {"app.kubernetes.io/name": "marketfeed"}
        for path in RESOURCES:
            resource = read_yaml(f"kubernetes/{path.name}")
            assert resource["metadata"] == {"name": "marketfeed", "labels": label}
            spec = resource["spec"]
            selector = spec.get("selector") or spec["podSelector"]
            assert selector.get("matchLabels", selector) == label

    def test_a_pod_is_let_end(self) -> None:
        """What comes before the drain, and the drain, are shorter than what it is given."""
        pod = read_yaml("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] > before + Settings().drain_seconds + 5
        assert pod["enableServiceLinks"] is False
        assert (
            f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == instructions("USER")[0]
        )
        assert container["securityContext"]["readOnlyRootFilesystem"]

    def test_the_ports_are_those_of_the_image(self) -> None:
        """By name from then on."""
        (container,) = read_yaml("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert " ".join(map(str, ports.values())) == instructions("EXPOSE")[0]
        assert ports == {"clients": 8080, "admin": 8081}
        probes = [container[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "liveness", "readiness")]
        monitored = [each["port"] for each in read_yaml("kubernetes/podmonitor.yaml")["spec"]["podMetricsEndpoints"]]
        assert {*probes, *monitored} == {"admin"}
