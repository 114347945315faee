"""How the page looks: light or dark as its reader's screen is, narrow or wide, and on paper."""

from collections.abc import Iterable, Mapping

from mmbridge.alignment.rendering.palette import Colour

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --muted: #5b6470; --line: #d5dae0; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0; }
p { max-width: 48rem; }
p.small, .small { color: var(--muted); font-size: .875rem; font-weight: normal; margin: .2rem 0; }
nav a { margin-right: 1rem; color: inherit; white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .8rem 0; }
dt { color: var(--muted); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--muted); font-weight: 600; white-space: nowrap; }
td.number { white-space: nowrap; }
.text td { min-width: 9rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
bdi.name { display: inline-block; max-width: 16rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  vertical-align: bottom; }
@media (max-width: 40rem) { bdi.name { max-width: 9rem; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 1.2rem; }
.charts.broad { display: flex; flex-wrap: wrap; }
.charts.broad figure { max-width: 100%; }
figure { margin: 0; min-width: 0; padding: .8rem; border: 1px solid var(--line); border-radius: .5rem;
  break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure .wide svg { width: auto; max-width: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: 0; margin: .4rem 0;
  font-size: .8125rem; }
.legend svg { display: inline-block; width: 1.6rem; height: .8rem; }
.legend li > span, .legend bdi { color: var(--ink); }
details { font-size: .8125rem; margin-top: .4rem; }
details > div { max-height: 22rem; overflow: auto; }
summary { cursor: pointer; color: var(--muted); }
.words { font: 12px system-ui, sans-serif; fill: var(--ink); }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.axis { stroke: var(--muted); }
.grid { stroke: var(--line); }
.chance { stroke: var(--muted); stroke-width: 2; stroke-linecap: round; }
.band { fill-opacity: .16; }
.line { stroke: currentColor; stroke-width: 2; }
.control { stroke: currentColor; stroke-width: 1.5; }
.mark { fill: currentColor; stroke: none; }
.cloud { fill-opacity: .65; }
.bar { fill: currentColor; fill-opacity: .35; stroke: currentColor; }
.cell { fill: currentColor; stroke: var(--line); }
"""

_DARK = "--ground: #14171b; --ink: #e8eaed; --muted: #a2abb6; --line: #343b44;"

_PRINT = """
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, details:not([open]) { display: none; }
  .wide, details > div { overflow: visible; max-height: none; }
  .charts { grid-template-columns: 1fr 1fr; }
  figure { padding: .4rem; }
  figure .wide svg { width: 100%; }
  h2, h3, thead { break-after: avoid; }
}
"""


def style(families: Mapping[str, Iterable[Colour]]) -> str:
    """The page's CSS; the colours of each family are ``--FAMILY-0``, ``--FAMILY-1`` and so on."""
    named = [(f"--{name}-{place}", each) for name, family in families.items() for place, each in enumerate(family)]
    light = " ".join(f"{name}: {colour.light};" for name, colour in named)
    dark = " ".join(f"{name}: {colour.dark};" for name, colour in named)
    on_dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} {dark} }} }}\n"
    return f"{_STYLE}:root {{ {light} }}\n{on_dark}{_PRINT}"
