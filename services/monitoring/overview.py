"""The dashboard `Duoserve`: promises, users, queue, coding agents, engines, GPU.

After a change, run `.envs/dev/bin/python -m services.monitoring`, which writes it to config/grafana.
"""

from pathlib import Path
from typing import TypeVar

from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphThresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

FILE = Path(__file__).resolve().parents[2] / "config" / "grafana" / "dashboards" / "overview.json"
_SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")

Panel = stat.Panel | timeseries.Panel
# A panel's queries: legend and PromQL.
Queries = dict[str, str]


def as_json() -> str:
    """The dashboard in the format that Grafana's provisioning reads."""
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return f"{encoder.encode(_overview().build())}\n"


def _overview() -> Dashboard:
    board = (
        Dashboard("Duoserve")
        .uid("duoserve")
        .tags(["duoserve"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    for title, panels in (
        ("Promises", _promises()),
        ("Users", _users()),
        ("Queue", _queue()),
        ("Coding agents", _agents()),
        ("Engines", _engines()),
        ("GPU", _gpu()),
    ):
        board.with_row(Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def _promises() -> list[Panel]:
    of_promise = "alias_promise:duoserve_promise_requests"
    budgets = {"ttft": "TTFT", "completion": "50-100 tokens", "availability": "availability"}
    # The burn rates at which alerts fire.
    windows = {"1h": 14.4, "6h": 6, "3d": 1}
    return [
        _stat(
            "Models ready", {"{{alias}}": "min by (alias) (duoserve_ready)"}, "bool_yes_no", least=1, width=3
        ),
        _stat(
            "Alerts", {"firing": 'count(ALERTS{alertstate="firing"}) or vector(0)'}, "none", most=1, width=3
        ),
        *(
            _stat(
                f"Error budget left, 30 d: {title}",
                {"{{alias}}": f'{of_promise}:budget_left_30d{{promise="{promise}"}}'},
                "percentunit",
                least=0,
                width=6,
            )
            for promise, title in budgets.items()
        ),
        *(
            _graph(
                f"Burn rate, {window[:-1]} {window[-1]}",
                {"{{alias}} {{promise}}": f"{of_promise}:burn_{window}"},
                "none",
                line=rate,
            )
            for window, rate in windows.items()
        ),
        _graph("TTFT: p95 against the promise", _against_limit("ttft"), "s"),
        _graph("50-100 tokens: p95 against the promise", _against_limit("completion"), "s"),
        _graph("TTFT: half of the requests", _quantile(0.5, "duoserve_ttft_seconds"), "s"),
    ]


def _against_limit(promise: str) -> Queries:
    """The p95 of each model, and the promised time, which depends on the machine."""
    return {
        "{{alias}}": f"alias:duoserve_{promise}_seconds:p95_5m",
        "promise": f'max(duoserve_promise_limit_seconds{{promise="{promise}"}})',
    }


def _users() -> list[Panel]:
    requests = 'sum by (alias) (rate(duoserve_requests_total{alias!="none"}[$__rate_interval]))'
    answers = 'duoserve_requests_total{path=~"/v1/.+"}[$__rate_interval]'
    return [
        _graph("Clients of the last 5 minutes", {"clients": "max(duoserve_active_clients)"}, "none", width=6),
        _graph(
            "Requests",
            {
                "{{alias}}": f"{requests} unless on (alias) duoserve_remote == 1",
                "{{alias}} (remote)": f"{requests} and on (alias) duoserve_remote == 1",
            },
            "reqps",
            width=6,
        ),
        _graph(
            "Answers by status",
            {"{{status}}": f"sum by (status) (rate({answers}))"},
            "reqps",
            width=6,
        ),
        _graph(
            "Tokens",
            {
                "{{alias}} {{kind}}": "sum by (alias, kind) (rate(duoserve_tokens_total[$__rate_interval]))",
            },
            "none",
            width=6,
        ),
    ]


def _queue() -> list[Panel]:
    return [
        _graph("Waiting for a slot", {"{{alias}}": "sum by (alias) (duoserve_waiting)"}, "none", width=6),
        _graph(
            "In a slot, of how many",
            {
                "{{alias}}": "sum by (alias) (duoserve_in_flight)",
                "{{alias}} slots": "max by (alias) (duoserve_slots)",
            },
            "none",
            width=6,
        ),
        _graph("Wait for a slot: p95", _quantile(0.95, "duoserve_queue_wait_seconds"), "s", width=6),
        _graph(
            "Refused, failed, left",
            {
                "{{reason}}": "sum by (reason) (rate(duoserve_rejections_total[$__rate_interval]))",
                "client left": "sum(rate(duoserve_aborted_total[$__rate_interval]))",
            },
            "reqps",
            width=6,
        ),
    ]


def _agents() -> list[Panel]:
    again = "rate(duoserve_read_again_tokens_total[$__rate_interval])"
    return [
        _graph(
            "Prompt tokens from the prefix cache",
            {"{{client}} {{tool}}": "client_tool:duoserve_turn_tokens:cached_ratio_15m"},
            "percentunit",
            width=12,
        ),
        _graph(
            "Read again, by reason", {"{{tool}}: {{reason}}": f"sum by (tool, reason) ({again})"}, "none", 12
        ),
    ]


def _engines() -> list[Panel]:
    hits, asked = (f"rate(vllm:prefix_cache_{what}_total[$__rate_interval])" for what in ("hits", "queries"))
    return [
        _graph(
            "Running and waiting in vLLM",
            {
                "{{alias}} running": "sum by (alias) (vllm:num_requests_running)",
                "{{alias}} waiting": "sum by (alias) (vllm:num_requests_waiting)",
            },
            "none",
        ),
        _graph("KV cache in use", {"{{alias}}": "max by (alias) (vllm:kv_cache_usage_perc)"}, "percentunit"),
        _graph(
            "Prompt tokens from the prefix cache",
            {"{{alias}}": f"sum by (alias) ({hits}) / sum by (alias) ({asked})"},
            "percentunit",
        ),
        _graph("Between tokens: p95", _quantile(0.95, "vllm:inter_token_latency_seconds"), "s"),
        _graph(
            "Preempted: the KV cache was full",
            {"{{alias}}": "sum by (alias) (rate(vllm:num_preemptions_total[$__rate_interval]))"},
            "reqps",
        ),
        _graph("Disk of the logs: free", {"free": "min(duoserve_log_disk_free_bytes)"}, "bytes"),
    ]


def _gpu() -> list[Panel]:
    return [
        _graph("Busy", {"GPU {{gpu}}": "gpu:duoserve_gpu:utilisation_ratio"}, "percentunit", width=6),
        _graph(
            "Memory in use", {"GPU {{gpu}}": "gpu:duoserve_gpu_memory:used_ratio"}, "percentunit", width=6
        ),
        _graph(
            "Power (GPU exporter)", {"GPU {{gpu}}": "max by (gpu) (DCGM_FI_DEV_POWER_USAGE)"}, "watt", width=6
        ),
        _graph(
            "Temperature (GPU exporter)",
            {"GPU {{gpu}}": "max by (gpu) (DCGM_FI_DEV_GPU_TEMP)"},
            "celsius",
            width=6,
        ),
    ]


def _quantile(share: float, histogram: str) -> Queries:
    rates = f"sum by (alias, le) (rate({histogram}_bucket[$__rate_interval]))"
    return {"{{alias}}": f"histogram_quantile({share}, {rates})"}


def _stat(
    title: str, queries: Queries, unit: str, width: int, most: float | None = None, least: float | None = None
) -> stat.Panel:
    """A figure for each series, which is red from `most` on, or below `least`."""
    good, bad = Threshold(None, "green"), Threshold(most, "red")
    if least is not None:
        good, bad = Threshold(None, "red"), Threshold(least, "green")
    panel = stat.Panel().thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([good, bad]))
    return _filled(panel, title, queries, unit, width, height=4)


def _graph(
    title: str, queries: Queries, unit: str, width: int = 8, line: float | None = None
) -> timeseries.Panel:
    """Lines over time, with a red line at `line`."""
    panel = timeseries.Panel().fill_opacity(8).axis_soft_min(0)
    if line is not None:
        steps = [Threshold(None, "transparent"), Threshold(line, "red")]
        panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        panel.thresholds_style(GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    return _filled(panel, title, queries, unit, width, height=7)


_P = TypeVar("_P", stat.Panel, timeseries.Panel)


def _filled(panel: _P, title: str, queries: Queries, unit: str, width: int, height: int) -> _P:
    panel.title(title).unit(unit).datasource(_SOURCE).span(width).height(height)
    for letter, (legend, expression) in zip("ABC", queries.items(), strict=False):
        query = Dataquery().datasource(_SOURCE).ref_id(letter).expr(expression).legend_format(legend)
        panel.with_target(query)
    return panel
