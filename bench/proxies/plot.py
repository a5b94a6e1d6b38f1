"""The plot: requests a second and CPU a paced event, a bar a peer, as SVG that reads well on light and dark pages."""

from collections.abc import Sequence
from html import escape
from math import log10
from typing import NamedTuple

from bench.proxies.peer import Peer
from bench.proxies.results import Results

WIDTH, LEFT, RIGHT, BAR, STEP, TITLE = 860, 170, 110, 18, 26, 44
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 14px; }
.bar { fill: #8c959f; } .ours { fill: #0969da; } .line { stroke: #d0d7de; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .bar { fill: #6e7681; } .ours { fill: #58a6ff; } .line { stroke: #30363d; }
}"""


class Chart(NamedTuple):
    """One group of bars, on a logarithmic scale: the peers are orders of magnitude apart."""

    title: str
    scenario: str
    figure: str
    digits: int
    upwards: bool  # more is better


CHARTS = (
    Chart(
        "JSON at 64 connections: requests a second on one core (more is better)", "json64", "requests_per_s", 0, True
    ),
    Chart("500 streams, 20 ms: CPU an event in microseconds (less is better)", "sse500", "cpu_us_per_event", 1, False),
)


def svg(results: Results, peers: Sequence[Peer]) -> str | None:
    """The drawing; None where the run has none of its figures."""
    body: list[str] = []
    top = 0
    for chart in CHARTS:
        bars = _bars(results, peers, chart)
        if bars:
            body += _draw(chart, bars, top)
            top += TITLE + STEP * len(bars) + 8
    if not body:
        return None
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 22}" role="img">'
    about = "<title>agw beside other proxies</title>"
    note = f'<text x="8" y="{top + 12}">Logarithmic scale; medians; how it was measured: proxies.md.</text>'
    return "\n".join([head, about, f"<style>{STYLE}</style>", *body, note, "</svg>"]) + "\n"


def _bars(results: Results, peers: Sequence[Peer], chart: Chart) -> list[tuple[Peer, float]]:
    found = [(peer, results.spread(chart.scenario, peer.name, chart.figure)) for peer in peers if peer.name != "direct"]
    bars = [(peer, spread.median) for peer, spread in found if spread is not None and spread.median > 0]
    return sorted(bars, key=lambda bar: bar[1], reverse=chart.upwards)


def _draw(chart: Chart, bars: Sequence[tuple[Peer, float]], top: int) -> list[str]:
    values = [value for _, value in bars]
    low = 10 ** int(log10(min(values)) - (min(values) < 1))
    decades = max(log10(max(values) / low), 0.01)
    room = WIDTH - LEFT - RIGHT
    lines = [f'<text class="title" x="8" y="{top + 28}">{escape(chart.title)}</text>']
    power = low
    while power <= max(values):
        x = LEFT + room * log10(power / low) / decades
        bottom = top + TITLE + STEP * len(bars)
        lines.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{top + TITLE - 4}" y2="{bottom - 4}"/>')
        power *= 10
    for place, (peer, value) in enumerate(bars):
        y = top + TITLE + STEP * place
        length = max(room * log10(value / low) / decades, 2)
        kind = "bar ours" if peer.name == "agw" else "bar"
        middle = y + BAR - 5
        lines.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(peer.title.strip("*"))}</text>')
        lines.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        lines.append(f'<text x="{LEFT + length + 6:.1f}" y="{middle}">{value:,.{chart.digits}f}</text>')
    return lines
