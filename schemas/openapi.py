"""Plain HTTP as an OpenAPI 3.1 document (docs/market-data.md#rest, docs/operations/health.md#health)."""

from __future__ import annotations

from typing import Any

from marketfeed import __version__
from marketfeed.model.kinds.kline import INTERVALS
from schemas.json_schema import components
from schemas.structs import ANSWERS, Readiness, Refusal

__all__ = ["openapi"]

_MARKET = "A market as in its streams' names, or its alias."
_INTEGER = {"type": "integer", "minimum": 0}
_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "symbol": (_MARKET, {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}),
    "symbols": ("At most 200 markets, as a list in JSON.", {"type": "string", "examples": ['["TATA_INR","INFY_INR"]']}),
    "limit": ("How many, at most.", {"type": "integer", "minimum": 1}),
    "fromId": ("From this id on; not with a time.", _INTEGER),
    "startTime": ("From here on, in ms since 1970.", _INTEGER),
    "endTime": ("Up to here, in ms since 1970.", _INTEGER),
    "interval": ("How long candles are.", {"enum": list(INTERVALS)}),
    "format": ("As what candles come.", {"enum": ["json", "csv"], "default": "json"}),
    "type": ("How much of the last 24 hours.", {"enum": ["FULL", "MINI"], "default": "FULL"}),
    "timeUnit": ("What times are in, anyway.", {"enum": ["MILLISECOND", "millisecond"]}),
    "timeZone": ("What times are in, anyway.", {"type": "string", "const": "0"}),
}
_SOME = ("symbol", "symbols")
_OF: dict[str, tuple[str, ...]] = {
    "exchangeInfo": _SOME,
    "depth": ("symbol", "limit"),
    "trades": ("symbol", "limit"),
    "aggTrades": ("symbol", "limit", "fromId", "startTime", "endTime"),
    "klines": ("symbol", "interval", "limit", "startTime", "endTime", "format"),
    "uiKlines": ("symbol", "interval", "limit", "startTime", "endTime", "format"),
    "ticker/24hr": (*_SOME, "type"),
    "ticker/price": _SOME,
    "ticker/bookTicker": _SOME,
}
_LIMITS = {"depth": (100, 5000)}
"""How many there are without a limit, and at most; of all else 500 and 1,000."""
_MINUTE, _SECOND = "public, max-age=60", "public, max-age=1"
_KEPT = {
    "exchangeInfo": _MINUTE,
    **dict.fromkeys(("klines", "uiKlines", "ticker/24hr", "ticker/price"), _SECOND),
}
_REFUSALS = {
    400: "A parameter is missing or cannot be used (-1100, -1102, -1120, -1121, -1128).",
    401: "The token is missing or bad (-1002).",
    403: "The token does not cover it, or a web page of this origin may not ask (-1002).",
    429: "Too many requests (-1003).",
    500: "A fault of this server (-1000).",
    503: "Not known yet, out of reach, or the daemon is shutting down (-1008).",
}
_WITH_RETRY = (429, 503)
_ADMIN = [{"url": "http://localhost:8081", "description": "The admin port."}]


def openapi() -> dict[str, Any]:
    """The document."""
    types = list(dict.fromkeys([Refusal, Readiness, *(kind for kinds in ANSWERS.values() for kind in kinds)]))
    found, named = components(types)
    schemas = {repr(kind): schema for kind, schema in zip(types, found, strict=True)}
    paths = {
        f"/api/v3/{path}": {"get": _get(path, [schemas[repr(kind)] for kind in ANSWERS[path]])} for path in ANSWERS
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "marketfeed",
            "version": __version__,
            "description": "Market data in plain HTTP. HEAD is answered as GET, without the body. Fields that are not "
            "described may be added by later versions.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": "{origin}", "variables": {"origin": {"default": "http://localhost:8080"}}},
        ],
        "tags": [
            {"name": "market data", "description": "As Binance's clients ask for it."},
            {"name": "health", "description": "For balancers and operators."},
        ],
        "security": [{}, {"bearer": []}, {"query": []}],
        "paths": {**paths, **_health(schemas[repr(Readiness)])},
        "components": {
            "schemas": named,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
            "headers": {
                "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
                "CacheControl": {
                    "description": "Who may keep it, and for how long; what is found by a token is `private`.",
                    "schema": {"type": "string"},
                },
            },
            "responses": {f"Refusal{status}": _refusal(status, about) for status, about in _REFUSALS.items()},
            "parameters": {
                "unit": {
                    "name": "X-MBX-TIME-UNIT",
                    "in": "header",
                    "description": "As timeUnit.",
                    "schema": {"enum": ["MILLISECOND", "millisecond"]},
                }
            },
        },
    }


def _get(path: str, answers: list[dict[str, Any]]) -> dict[str, Any]:
    usual, most = _LIMITS.get(path, (500, 1000))
    parameters: list[dict[str, Any]] = []
    names = _OF.get(path, ())
    for name in (*names, "timeUnit", "timeZone"):
        about, schema = _PARAMETERS[name]
        if name == "limit":
            about, schema = f"{about} More than {most} are {most}.", {**schema, "default": usual}
        needed = name == "interval" or (name == "symbol" and "symbols" not in names)
        parameters.append({"name": name, "in": "query", "description": about, "required": needed, "schema": schema})
    parameters.append({"$ref": "#/components/parameters/unit"})
    content: dict[str, Any] = {"application/json": {"schema": answers[0] if len(answers) == 1 else {"anyOf": answers}}}
    if "format" in names:
        content["text/csv"] = {"schema": {"type": "string"}}
    header = {"$ref": "#/components/headers/CacheControl"}
    good = {
        "description": f"Cache-Control: {_KEPT.get(path, 'no-store')}.",
        "headers": {"Cache-Control": header},
        "content": content,
    }
    refused = {str(status): {"$ref": f"#/components/responses/Refusal{status}"} for status in _REFUSALS}
    return {
        "operationId": path.replace("/", "_"),
        "tags": ["market data"],
        "parameters": parameters,
        "responses": {"200": good, **refused},
    }


def _refusal(status: int, about: str) -> dict[str, Any]:
    headers = {"Cache-Control": {"$ref": "#/components/headers/CacheControl"}}
    if status in _WITH_RETRY:
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    return {"description": about, "headers": headers, "content": content}


def _health(readiness: dict[str, Any]) -> dict[str, Any]:
    """On both ports, or the admin port alone."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    reasons = {"application/json": {"schema": readiness}}

    def get(name: str, answers: dict[str, tuple[str, dict[str, Any]]], **more: Any) -> dict[str, Any]:
        responses = {status: {"description": about, "content": content} for status, (about, content) in answers.items()}
        return {"get": {"operationId": name, "tags": ["health"], "security": [{}], "responses": responses}, **more}

    both = {**text, **reasons}
    yes, no = "Clients should come here.", "They should not; on the admin port with the reasons, as JSON."
    return {
        "/healthz": get("healthz", {"200": ("The process lives.", text)}),
        "/readyz": get("readyz", {"200": (yes, both), "503": (no, both)}),
        "/readyz/candles": get(
            "readyz_candles", {"200": ("Candles are made.", reasons), "503": ("They are not.", reasons)}, servers=_ADMIN
        ),
        "/metrics": get("metrics", {"200": ("As Prometheus reads them.", text)}, servers=_ADMIN),
    }
