"""Fuzzes a running router against docs/contracts: what it answers must be described there, and never be
a 500.
"""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support import ROOT
from tests.support.service import Service

CONTRACTS = ROOT / "docs" / "contracts"
models = schemathesis.openapi.from_path(CONTRACTS / "openai-api.yaml")
health = schemathesis.openapi.from_path(CONTRACTS / "health-api.yaml")
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
FUZZ = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))

Case = schemathesis.Case[Any]


def call(case: Case, service: Service) -> None:
    if isinstance(case.body, dict) and "model" in case.body:
        case.body["model"] = "coder"  # a random name is a 404 and goes no further
    response = case.call(base_url=service.url, headers=service.headers)
    case.validate_response(response, checks=CHECKS)
    assert response.status_code not in (500, 502), response.text


@models.parametrize()
@FUZZ
def test_models(case: Case, service: Service) -> None:
    call(case, service)


@health.parametrize()
@FUZZ
def test_health(case: Case, service: Service) -> None:
    call(case, service)
