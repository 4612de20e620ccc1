"""The usage page: who asked for how much, and when. A personal key shows only itself."""

from typing import Any

import altair as alt
import streamlit as st

from ui import signin
from ui.markdown import plain
from ui.router_client import RouterFailure, Usage, UsageSums
from ui.session import ChatSession
from ui.views.beside_chat import begin_page

_SPANS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days"}
_COUNTS = ("Requests", "Tokens in", "Cached", "Tokens out", "Wait", "Refused", "Failed")
_TEXTS = ("Why", "Tools")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _page(chat: ChatSession) -> None:
    begin_page(chat, "Usage")
    viewer = signin.viewer(chat.backend.settings, st.context.cookies.get(signin.COOKIE))
    if viewer is None:  # signed out in another tab
        return
    st.markdown(
        "From the router's log, which holds counts and times, but no questions or answers. Questions asked "
        f"in this app count towards the key you signed in with; `{signin.MASTER}` is the service's key."
        + ("" if viewer == signin.MASTER else f" You see only the usage of your key, {plain(viewer)}.")
    )
    since = st.radio("Period", list(_SPANS), 1, format_func=_SPANS.get, horizontal=True)
    try:
        with st.spinner("Reading the log …"):
            found = chat.backend.usage(since or "7d", -(st.context.timezone_offset or 0), chat.key)
    except RouterFailure as failure:
        if failure.kind == "personal":
            chat.backend.refused(chat.key)
            st.rerun()
        st.error(str(failure), icon=":material/error:")
        return
    _draw(found)


def _draw(found: Usage) -> None:
    if found.log_begins:
        st.caption(f"The log begins on {found.log_begins:%Y-%m-%d at %H:%M} UTC.")
    if not found.total.requests:
        st.info("No requests in this period.")
        return
    st.markdown(_table("Who", found.client, found.total))
    st.header("When", anchor=False)
    st.altair_chart(_heat_map(found.hours))
    for title, heading, rows in (
        ("By model", "Model", found.model),
        ("By tool", "Tool", found.tool),
        ("By day", "Day", found.day),
    ):
        st.header(title, anchor=False)
        st.markdown(_table(heading, rows))


def _table(heading: str, rows: list[UsageSums], total: UsageSums | None = None) -> str:
    """A table in Markdown."""
    lines: list[tuple[str, ...]] = [(heading, *_COUNTS, *_TEXTS)]
    lines.append(("---", *["---:"] * len(_COUNTS), *["---"] * len(_TEXTS)))
    lines += [_cells(plain(row.name or "unknown"), row) for row in rows]
    if total and len(rows) > 1:
        lines.append(_cells("**Total**", total))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(name: str, row: UsageSums) -> tuple[str, ...]:
    return (
        name,
        f"{row.requests:,}",
        f"{row.prompt_tokens:,}",
        "–" if row.cached_share is None else f"{row.cached_share:.0%}",
        f"{row.completion_tokens:,}",
        "–" if row.mean_wait_ms is None else f"{row.mean_wait_ms / 1000:.2f} s",
        f"{row.refused:,}",
        f"{row.failed:,}",
        plain(", ".join(f"{reason} {number}" for reason, number in row.reasons.items())),
        plain(", ".join(row.tools)),
    )


def _heat_map(hours: list[list[int]]) -> alt.Chart:
    cells: list[dict[str, Any]] = [
        {"day": day, "hour": hour, "requests": count}
        for day, counts in zip(_DAYS, hours, strict=True)
        for hour, count in enumerate(counts)
    ]
    chart: alt.Chart = (
        alt.Chart({"values": cells})
        .mark_rect(aria=False)
        .encode(
            x=alt.X("hour:O", title="hour", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("day:O", title=None, sort=list(_DAYS), axis=alt.Axis(labelOverlap=False)),
            color=alt.Color("requests:Q", title="requests", scale=alt.Scale(scheme="blues")),
            tooltip=["day:O", "hour:O", "requests:Q"],
        )
        .properties(description="Requests by weekday and hour", height=200)
    )
    return chart


_page(st.session_state.chat)
