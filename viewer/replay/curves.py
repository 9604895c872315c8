"""A run's curves over its steps, by plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpm.viewer.boxes import EDIT_COLORS, ZONE_COLORS
from lpm.viewer.replay.data import EDITS, Curve, Replay

if TYPE_CHECKING:
    import plotly.graph_objects as go

BLUE, GREY, VIOLET = (30, 110, 200), (150, 150, 150), (120, 80, 200)


def css(color: tuple[int, int, int]) -> str:
    """A colour 0..255 as browsers take it."""
    return f"rgb{color}".replace(" ", "")


def rows(replay: Replay) -> list[tuple[str, dict[str, tuple[Curve, str]]]]:
    """Title of each plot that says something, and its curves with their colours by name.

    Points, error, edits, and held-out PSNR where it was measured.
    """
    curves = replay.curves()
    wanted = [
        ("points", {"budget": GREY, "points": BLUE}),
        ("error of zones", {"error": ZONE_COLORS["false-front"]}),
        ("edits", {**{name: EDIT_COLORS[name] for name in EDITS}, "relocated": VIOLET}),
        ("held-out PSNR, dB", {"psnr": BLUE}),
    ]
    found = [
        (title, {name: (curves[name], css(color)) for name, color in lines.items() if any(curves[name][1])})
        for title, lines in wanted
    ]
    return [(title, lines) for title, lines in found if lines]


def plots(replay: Replay, template: str = "plotly_white") -> go.Figure:
    """The plots of `rows`, one below the other."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    found = rows(replay)
    titles = [title for title, _ in found]
    figure = make_subplots(len(found), 1, shared_xaxes=True, vertical_spacing=0.09, subplot_titles=titles)
    for row, (_, lines) in enumerate(found, 1):
        for name, ((steps, values), color) in lines.items():
            dash = "dash" if name == "budget" else "solid"
            line = go.Scatter(x=steps, y=values, name=name, mode="lines+markers", marker_size=4, connectgaps=True,
                              line={"color": color, "dash": dash, "width": 2}, showlegend=len(lines) > 1)  # fmt: skip
            figure.add_trace(line, row, 1)
    figure.update_layout(template=template, margin={"l": 50, "r": 10, "t": 30, "b": 40}, font_size=11,
                         legend={"orientation": "h", "y": -0.08, "yanchor": "top"})  # fmt: skip
    figure.update_xaxes(title_text="step", row=len(found))
    figure.update_yaxes(rangemode="tozero")
    if titles and titles[-1].startswith("held-out"):
        figure.update_yaxes(rangemode="normal", row=len(found))
    return figure


def mark(figure: go.Figure, step: int) -> None:
    """Draws a line at `step` through all of `figure`'s plots, in place of the last one."""
    figure.update_layout(shapes=[{"type": "line", "xref": "x", "yref": "paper", "x0": step, "x1": step, "y0": 0,
                                  "y1": 1, "line": {"color": "rgb(90,90,90)", "width": 1.5}}])  # fmt: skip
