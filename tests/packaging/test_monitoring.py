"""Rules, alerts and dashboard are well-formed, hold to the promises, and are explained."""

import json
import re
import shutil
import subprocess
import tomllib
from typing import Any

import promql_parser
import pytest
import yaml

from services.monitoring import overview
from services.stack.environments import ROOT

RULES = ROOT / "config" / "prometheus" / "rules"
TESTS = ROOT / "tests" / "packaging" / "prometheus" / "alerts.yml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def _rules() -> list[Any]:
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yml"))]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in _rules() if "alert" in rule}


def _promtool(*arguments: str) -> None:
    answer = subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@needs_promtool
def test_prometheus_accepts_configuration_and_rules() -> None:
    for name in ("compose", "host"):
        _promtool("check", "config", "--syntax-only", f"config/prometheus/{name}.yml")
    _promtool("check", "rules", *(str(path) for path in RULES.glob("*.yml")))


@needs_promtool
def test_every_alert_fires_when_it_should() -> None:
    _promtool("test", "rules", str(TESTS))
    tested = {
        case["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }
    assert tested == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook(name: str) -> None:
    link = ALERTS[name]["annotations"]["runbook_url"]
    assert link == f"docs/operations.md#{name.lower()}"
    assert re.search(rf"^#+ {name}$", OPERATIONS, re.M)


def test_promises_are_those_of_the_load_tests() -> None:
    objectives = tomllib.loads((ROOT / "loadtests" / "slo.toml").read_text())["objective"]
    ttft = next(o["limit"] / 1000 for o in objectives if o["metric"] == "ttft" and o.get("promise"))
    # The other promise on whole requests compares two levels of load, which a running service does not have.
    completion = next(
        o["limit"] / 1000
        for o in objectives
        if o["metric"] == "total" and o.get("promise") and "compared_to" not in o
    )
    assert (ttft, completion) == (overview.TTFT, overview.COMPLETION)
    assert f"p95_5m > {ttft:g}\n" in ALERTS["DuoserveTtftSlow"]["expr"]
    assert f"p95_5m > {completion:g}\n" in ALERTS["DuoserveCompletionSlow"]["expr"]
    shares = {rule["record"]: rule["expr"] for rule in _rules() if "within_1h" in rule.get("record", "")}
    assert f'le="{ttft}"' in shares["alias:duoserve_ttft_seconds:within_1h"]
    assert f'le="{completion}"' in shares["alias:duoserve_completion_seconds:within_1h"]


def test_the_dashboard_is_what_its_code_makes() -> None:
    current = overview.as_json() == overview.FILE.read_text()
    assert current, "run: .envs/dev/bin/python -m services.monitoring"


def test_every_query_of_the_dashboard_is_promql() -> None:
    panels = [p for p in json.loads(overview.FILE.read_text())["panels"] if p["type"] != "row"]
    assert len(panels) > 20
    for panel in panels:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            promql_parser.parse(target["expr"].replace("$__rate_interval", "1m"))


def test_both_configurations_ask_the_same_services() -> None:
    jobs = {}
    for name in ("compose", "host"):
        configuration = yaml.safe_load((RULES.parent / f"{name}.yml").read_text())
        assert configuration["rule_files"] == ["rules/*.yml"]
        jobs[name] = {job["job_name"] for job in configuration["scrape_configs"]}
    assert jobs["compose"] - jobs["host"] == {"gpu"}  # without containers the router shows the GPU
    assert jobs["host"] == {"router", "engine"}
