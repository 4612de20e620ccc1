"""The page for the team: where the service is, how to use it elsewhere, and how it does at the moment."""

import urllib.parse
from collections.abc import Callable

import altair as alt
import streamlit as st

from ui import components, ide, slo
from ui.client import Readiness
from ui.markdown import plain
from ui.session import ChatSession

TTFT_PROMISE = 0.5  # seconds, p95 of streamed answers
_SIGN = {"ready": ":green[●] ready", "loading": ":orange[◐] loading", "down": ":red[○] down"}
chat: ChatSession = st.session_state.chat


def _page() -> None:
    chat.collect()
    with st.sidebar:
        st.page_link("views/chat.py", label="Back to the chat", icon=":material/arrow_back:")
    st.title("About this service", anchor=False)
    st.markdown(
        "Two language models on a machine of our own, behind one address that speaks the OpenAI API. "
        "What you ask stays on that machine, and your conversations stay in your browser."
    )
    with components.place_of_its_own("stretch"):
        _live()
    _editors()


def _endpoint() -> str:
    """The router's address as this browser's machine reaches it."""
    host = urllib.parse.urlsplit(st.context.url or "").hostname or "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{chat.service.settings.router_port}/v1"


@st.fragment(run_every=5.0)
def _live() -> None:
    st.subheader("Right now", anchor=False)
    readiness = chat.service.readiness
    if readiness is None:
        st.error(f"The router does not answer at {chat.service.settings.router}.", icon=":material/error:")
    else:
        _models(readiness)
    samples = list(chat.service.samples)
    if readiness and not samples:
        st.info("The router gave no figures yet.")
    if len(samples) < 2:
        return
    st.subheader("Last 15 minutes", anchor=False)
    course = slo.points(samples)
    columns = st.columns(3)
    for column, title, unit, value in _CHARTS:
        with columns[column]:
            st.markdown(f"**{title}**  \n:small[:gray[{unit}]]")
            rows = [
                {"time": point.time * 1000, "model": point.model, "value": value(point)}
                for point in course
                if value(point) is not None
            ]
            axis = alt.Axis(format="~g", tickCount=4)
            if rows:
                # aria=False on the marks: the chart as a whole has a description, its parts need none.
                line = alt.Chart({"values": rows}).mark_line(aria=False, point=alt.OverlayMarkDef(aria=False))
                st.altair_chart(
                    line.encode(
                        x=alt.X("time:T", title=None, axis=alt.Axis(format="%H:%M", tickCount=4)),
                        y=alt.Y("value:Q", title=None, scale=alt.Scale(domainMin=0), axis=axis),
                        color=alt.Color("model:N", title=None, legend=alt.Legend(orient="bottom")),
                        tooltip=["model:N", "time:T", alt.Tooltip("value:Q", format=".2f")],
                    ).properties(description=f"{title}: {unit}, the last 15 minutes", height=180)
                )
            else:
                st.caption("Nothing was asked.")


_CHARTS: list[tuple[int, str, str, Callable[[slo.Point], float | None]]] = [
    (0, "Time to first token", "seconds, p95 of streamed answers", lambda point: point.ttft_p95),
    (1, "Tokens per second", "all answers together", lambda point: point.tokens_per_second),
    (2, "Waiting", "requests in the queue", lambda point: point.waiting),
]


def _models(readiness: Readiness) -> None:
    samples = chat.service.samples
    for column, (name, status) in zip(
        st.columns(max(2, len(readiness.models))), sorted(readiness.models.items()), strict=False
    ):
        with column.container(border=True):
            st.markdown(f"**{plain(name)}** {_SIGN[status.state]}", help=plain(status.reason))
            ttft = None
            if len(samples) > 1:
                ttft = slo.quantile(samples[0].ttft.get(name, {}), samples[-1].ttft.get(name, {}), 0.95)
            window = chat.service.windows.get(name)
            kept = "" if ttft is None else " :green[(kept)]" if ttft < TTFT_PROMISE else " :red[(missed)]"
            st.markdown(
                f"First token, p95: {f'{ttft:.2f} s' if ttft is not None else 'nothing asked yet'}{kept}  \n"
                f"Promise: below {TTFT_PROMISE:.1f} s  \n"
                f"Running {samples[-1].in_flight.get(name, 0) if samples else 0}, "
                f"waiting {samples[-1].waiting.get(name, 0) if samples else 0}  \n"
                f"Window: {f'{window:,} tokens' if window else 'unknown'}"
            )


def _editors() -> None:
    st.subheader("In your editor", anchor=False)
    st.markdown("Any tool for the OpenAI API works with this address and the team's key:")
    st.code(_endpoint(), language=None)
    shown = st.toggle("Show the key", help="It goes to this browser only while this is on.")
    key = chat.service.settings.litellm_master_key.get_secret_value() if shown else ide.HIDDEN
    if shown:
        st.code(key, language=None)
    found = {tool.title: tool for tool in ide.tools()}
    if not found:
        return
    tool = found[st.selectbox("Settings for", list(found))]
    names = [model.name for model in chat.service.models if model.root == "coder"]
    ratio = chat.service.settings.context_ratio
    filled = ide.values(_endpoint().removesuffix("/v1"), key, chat.service.windows, ratio, names)
    st.markdown(f"Goes into `{tool.file}`." if tool.file else "Entered by hand.")
    st.code(tool.settings(filled), language=tool.language)
    st.caption(f"Not here: {plain(tool.limits)}")


_page()
