"""The page for the team: where the service is, how to use it from other tools, and how it is doing."""

import urllib.parse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import altair as alt
import streamlit as st

from ui import ide, metrics, signin
from ui.markdown import plain
from ui.page_runs import fragment_place
from ui.router_client import Readiness
from ui.session import ChatSession
from ui.views.beside_chat import begin_page

_SIGN = {"ready": ":green[●] ready", "loading": ":orange[◐] loading", "down": ":red[○] down"}


def _page(chat: ChatSession) -> None:
    begin_page(chat, "About this service")
    elsewhere = [each.name for each in chat.backend.models if each.provider and each.name == each.root]
    st.markdown(
        "Models on our own server, behind one address that speaks the OpenAI API. What you ask stays on that "
        "server. Your conversations are stored in your browser; the server stores them only if you sync "
        "them, and then encrypted."
        + (f" Except for {plain(', '.join(elsewhere))}: another provider answers." if elsewhere else "")
    )
    _editors(chat)
    with fragment_place("stretch"):
        _live(chat)


def _endpoint(chat: ChatSession) -> str:
    """The router's address as seen from this browser's machine."""
    host = urllib.parse.urlsplit(st.context.url or "").hostname or "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{chat.backend.settings.router_port}/v1"


@st.fragment(run_every=5.0)
def _live(chat: ChatSession) -> None:
    st.header("Right now", anchor=False)
    readiness = chat.backend.readiness
    if readiness is None:
        st.error(
            f"The router at {chat.backend.settings.router_url} is not responding.", icon=":material/error:"
        )
    else:
        _models(chat, readiness)
    samples = list(chat.backend.samples)
    if len(samples) > 1:
        _course(samples)
    if samples:
        _promises(samples[-1])
    elif readiness:
        st.info("No figures from the router yet.")


def _course(samples: Sequence[metrics.MetricsSample]) -> None:
    """The last minutes."""
    st.header("Last 15 minutes", anchor=False)
    course = metrics.points(samples)
    for column, (title, unit, value, has_target) in zip(st.columns(3), _CHARTS, strict=True):
        with column:
            st.markdown(f"**{title}**")
            rows = [
                {"time": point.time * 1000, "model": point.model, "value": value(point)}
                for point in course
                if value(point) is not None
            ]
            if rows:
                st.altair_chart(_chart(rows, title, unit, samples[-1].ttft_limit if has_target else None))
            else:
                st.caption("No requests.")


def _chart(
    rows: list[dict[str, Any]], title: str, unit: str, target: float | None
) -> alt.LayerChart | alt.FacetChart:
    """The course of a figure, and a dashed line at its target."""
    # aria=False on the marks: the chart as a whole has a description, its parts need none.
    line = (
        alt.Chart({"values": rows})
        .mark_line(aria=False, point=alt.OverlayMarkDef(aria=False))
        .encode(
            x=alt.X("time:T", title="time", axis=alt.Axis(format="%H:%M", tickCount=4)),
            y=alt.Y(
                "value:Q",
                title=unit,
                scale=alt.Scale(domainMin=0),
                axis=alt.Axis(format="~g", tickCount=4),
            ),
            color=alt.Color("model:N", title=None, legend=alt.Legend(orient="bottom")),
            tooltip=["model:N", "time:T", alt.Tooltip("value:Q", title=unit, format=".2f")],
        )
    )
    described = f"{title}: {unit}, the last 15 minutes"
    layers = [line]
    if target is not None:
        described += f"; the target is {target:g}"
        base = alt.Chart({"values": [{"target": target, "label": f"target {target:g}"}]})
        layers += [
            base.mark_rule(aria=False, strokeDash=[5, 4], color="gray").encode(y="target:Q"),
            base.mark_text(aria=False, align="left", dx=3, dy=-6, color="gray").encode(
                x=alt.value(0), y="target:Q", text="label:N"
            ),
        ]
    return alt.layer(*layers).properties(description=described, height=200)


# Title, unit, value, and whether there is a target for it.
_CHARTS: list[tuple[str, str, Callable[[metrics.ChartPoint], float | None], bool]] = [
    ("Time to first token", "seconds, p95", lambda point: point.ttft_p95, True),
    ("Throughput", "tokens per second", lambda point: point.tokens_per_second, False),
    ("Queue", "requests waiting", lambda point: point.waiting, False),
]
# Title, and the sentence that a share begins.
_PROMISES = {
    "ttft": ("First token", "of answers begin within {limit:g} s"),
    "completion": ("Completion", "of answers of 50 to 100 tokens take at most {limit:g} s"),
    "availability": ("Availability", "of requests do not fail"),
}


def _promises(sample: metrics.MetricsSample) -> None:
    """How the promises were kept, and how much of their error budgets is left."""
    if not sample.promises:  # the router is of an earlier version
        return
    st.header("Last 30 days", anchor=False)
    since = datetime.fromtimestamp(sample.promises_since, UTC) if sample.promises_since else None
    st.markdown(
        "What the service promises, and its error budget: the share of requests that may miss it. "
        "The promised times do not apply to agents, which send longer prompts."
        + (f" Counted since {since:%Y-%m-%d}." if since else "")
    )
    for column, (name, (title, sentence)) in zip(st.columns(3), _PROMISES.items(), strict=True):
        with column:
            st.markdown(f"**{title}**")
            _promise(sample.promises[name], title, sentence)


def _promise(promise: metrics.Promise, title: str, sentence: str) -> None:
    if "{limit" in sentence and promise.limit is None:
        st.caption("The limit depends on the speed of this CPU, which has not been measured.")
        return
    st.markdown(f"{promise.objective * 100:g}% {sentence.format(limit=round(promise.limit or 0, 1))}")
    left = {model: promise.budget_left(model) for model in sorted({*promise.kept, *promise.broken})}
    known = {model: share for model, share in left.items() if share is not None}
    if not known:
        st.caption("No requests.")
        return
    st.altair_chart(_bars(known, title))
    st.markdown("  \n".join(_told(promise, model, share) for model, share in known.items()))


def _told(promise: metrics.Promise, model: str, left: float) -> str:
    total = promise.requests(model)
    kept = f"kept in {promise.kept.get(model, 0) / total:.1%} of {total:,.0f} requests"
    budget = f"budget overdrawn by {-left:.0%}" if left < 0 else f"{left:.0%} of the budget left"
    return f"{plain(model)}: {kept}, {budget}"


def _bars(left: dict[str, float], title: str) -> alt.Chart:
    """What is left of each model's error budget; one that is overdrawn points to the other side, in red."""
    least = max(-1.0, min(0.0, *left.values()))
    chart: alt.Chart = (
        alt.Chart({"values": [{"model": model, "left": share} for model, share in left.items()]})
        .mark_bar(aria=False)
        .encode(
            x=alt.X(
                "left:Q",
                title="error budget left",
                scale=alt.Scale(domain=[least, 1], clamp=True),
                axis=alt.Axis(format="%", tickCount=4),
            ),
            y=alt.Y("model:N", title=None),
            color=alt.condition(alt.datum.left < 0, alt.value("#c62828"), alt.value("#2e7d32")),
            tooltip=["model:N", alt.Tooltip("left:Q", title="error budget left", format=".0%")],
        )
        .properties(description=f"{title}: error budget left, the last 30 days", height=alt.Step(24))
    )
    return chart


def _models(chat: ChatSession, readiness: Readiness) -> None:
    samples = chat.backend.samples
    target = samples[-1].ttft_limit if samples else None
    columns = [column for _ in range(0, len(readiness.models), 3) for column in st.columns(3)]
    for column, (name, status) in zip(columns, sorted(readiness.models.items()), strict=False):
        with column.container(border=True):
            st.markdown(
                f"**{plain(chat.backend.title(name))}** {_SIGN[status.state]}", help=plain(status.reason)
            )
            if known := chat.backend.listed(name):
                st.caption(plain(known.real))
            ttft = None
            if len(samples) > 1:
                ttft = metrics.quantile(samples[0].ttft.get(name, {}), samples[-1].ttft.get(name, {}), 0.95)
            window = chat.backend.windows.get(name)
            goal = "unknown"
            if target is not None:
                met = "" if ttft is None else " :green[(met)]" if ttft < target else " :red[(missed)]"
                goal = f"under {target:.1f} s{met}"
            st.markdown(
                f"TTFT, p95: {f'{ttft:.2f} s' if ttft is not None else 'no requests yet'}  \n"
                f"Target: {goal}  \n"
                f"Requests: {samples[-1].in_flight.get(name, 0) if samples else 0} running, "
                f"{samples[-1].waiting.get(name, 0) if samples else 0} waiting  \n"
                f"Context window: {f'{window:,} tokens' if window else 'unknown'}"
            )


def _editors(chat: ChatSession) -> None:
    st.header("In your editor", anchor=False)
    own = signin.viewer(chat.backend.settings, st.context.cookies.get(signin.COOKIE)) != signin.MASTER
    whose = "your own key" if own else "the team's key"
    st.markdown(f"Any tool that speaks the OpenAI API works with this address and {whose}:")
    st.code(_endpoint(chat), language=None)
    # Whoever has a key of their own gets no other one here.
    shown = not own and st.toggle(
        "Show the key", help="The key is sent to this browser only while this is on."
    )
    key = chat.backend.settings.litellm_master_key.get_secret_value() if shown else ide.HIDDEN
    if shown:
        st.code(key, language=None)
    found = {tool.title: tool for tool in ide.tools()}
    if not found:
        return
    tool = found[st.selectbox("Settings for", list(found))]
    ratio = chat.backend.settings.context_ratio
    filled = ide.values(_endpoint(chat).removesuffix("/v1"), key, chat.backend.models, ratio)
    st.markdown(f"Put this in `{tool.file}`:" if tool.file else "Enter these values by hand:")
    st.code(tool.settings(filled), language=tool.language)
    st.caption(f"Limitations: {plain(tool.limits)}")


_page(st.session_state.chat)
