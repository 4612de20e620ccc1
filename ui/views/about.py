"""The page for the team: where the service is, how to use it from other tools, and its live figures."""

import urllib.parse
from collections.abc import Callable
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
    if readiness and not samples:
        st.info("No figures from the router yet.")
    if len(samples) < 2:
        return
    st.header("Last 15 minutes", anchor=False)
    course = metrics.points(samples)
    for column, (title, unit, value, target) in zip(st.columns(3), _CHARTS, strict=True):
        with column:
            st.markdown(f"**{title}**")
            rows = [
                {"time": point.time * 1000, "model": point.model, "value": value(point)}
                for point in course
                if value(point) is not None
            ]
            if rows:
                st.altair_chart(_chart(rows, title, unit, target() if target else None))
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


_CHARTS: list[tuple[str, str, Callable[[metrics.ChartPoint], float | None], Callable[[], float] | None]] = [
    ("Time to first token", "seconds, p95", lambda point: point.ttft_p95, metrics.ttft_target),
    ("Throughput", "tokens per second", lambda point: point.tokens_per_second, None),
    ("Queue", "requests waiting", lambda point: point.waiting, None),
]


def _models(chat: ChatSession, readiness: Readiness) -> None:
    target = metrics.ttft_target()
    samples = chat.backend.samples
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
            met = "" if ttft is None else " :green[(met)]" if ttft < target else " :red[(missed)]"
            st.markdown(
                f"TTFT, p95: {f'{ttft:.2f} s' if ttft is not None else 'no requests yet'}  \n"
                f"Target: under {target:.1f} s{met}  \n"
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
