"""Rules, alerts and dashboard are well-formed, hold to the promises, and are explained."""

import json
import re
import shutil
import subprocess
from typing import Any

import promql_parser
import pytest
import yaml

from services.monitoring import overview
from services.stack.environments import ROOT

RULES = ROOT / "config" / "prometheus" / "rules"
TESTS = sorted((ROOT / "tests" / "packaging" / "prometheus").glob("*.yml"))
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
    _promtool("test", "rules", *map(str, TESTS))
    tested = {
        case["alertname"]
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }
    assert tested == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook(name: str) -> None:
    link = ALERTS[name]["annotations"]["runbook_url"]
    assert link == f"docs/operations.md#{name.lower()}"
    assert re.search(rf"^#+ {name}$", OPERATIONS, re.M)


def test_alerts_and_dashboard_have_the_burn_rates_of_the_workbook() -> None:
    # The part of the 30 days' budget that a window may cost (https://sre.google/workbook/alerting-on-slos/).
    windows = {("1h", "5m"): 0.02, ("6h", "30m"): 0.05, ("3d", "6h"): 0.1}
    hours = {"1h": 1, "6h": 6, "3d": 72}
    rates = {window: windows[window] * 30 * 24 / hours[window[0]] for window in windows}
    found = set()
    for name in ("DuoserveFastBurn", "DuoserveSlowBurn"):
        expression = " ".join(ALERTS[name]["expr"].split())
        pair = r":burn_(\w+) > ([\d.]+) and [\w:]+:burn_(\w+) > ([\d.]+) and [\w:]+:broken_(\w+) >= 10"
        for long, rate, short, same, counted in re.findall(pair, expression):
            assert rate == same and long == counted and float(rate) == pytest.approx(rates[long, short])
            found.add((long, short))
    assert found == set(windows)
    lines = {
        panel["targets"][0]["expr"].rpartition("burn_")[2]: panel["fieldConfig"]["defaults"]["thresholds"]
        for panel in json.loads(overview.FILE.read_text())["panels"]
        if panel["title"].startswith("Burn rate")
    }
    drawn = {window: thresholds["steps"][1]["value"] for window, thresholds in lines.items()}
    assert drawn == pytest.approx({long: rate for (long, _), rate in rates.items()})


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
