"""What deploy/ says to the daemon by its variables: each is an option, and has a value that can be used."""

from __future__ import annotations

import re

from marketfeed.config.options import OPTIONS
from marketfeed.config.settings import Settings, load
from tests.deploy.files import DEPLOY, ROOT, read_yaml

OF_INSTALLATION = {"MARKETFEED_COMPILED"}
KNOWN = {option.environment for option in OPTIONS}


def test_every_variable_is_an_option() -> None:
    """In the files themselves, in their comments, and in the guide to them."""
    files = [path for path in DEPLOY.rglob("*") if path.is_file()] + [ROOT / "docs" / "deploy.md"]
    said = {
        name
        for path in files
        for name in re.findall(r"\b(?:MARKETFEED|REDIS)_[A-Z_]+\b|\bPORT(?==|:)", path.read_text(encoding="utf-8"))
    }
    assert {"MARKETFEED_ADMIN", "MARKETFEED_LOG_FORMAT", "REDIS_URL", "PORT"} <= said
    assert said <= KNOWN | OF_INSTALLATION


def used(environment: dict[str, str]) -> Settings:
    """The settings that come of variables; none of them has a fault, or is misspelt."""
    settings = load({}, environment)
    assert settings.warnings == ()
    return settings


def test_compose_says_what_can_be_used() -> None:
    """To both daemons."""
    services = read_yaml("compose.yaml")["services"]
    for name in ("one", "two"):
        assert services[name]["environment"].keys() <= KNOWN
        assert used(services[name]["environment"]).admin == "tcp:8081"


def test_kubernetes_says_what_can_be_used() -> None:
    """In the file of which its configuration is made."""
    lines = (DEPLOY / "kubernetes" / "marketfeed.env").read_text(encoding="utf-8").splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    assert environment.keys() <= KNOWN
    assert used(environment).admin == "tcp:8081"
