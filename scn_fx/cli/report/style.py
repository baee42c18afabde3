# SPDX-License-Identifier: Apache-2.0
"""How a report looks: one column on a phone, two where there is room."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { --ink: #1c2230; --quiet: #5d6678; --line: #d9dde5; --paper: #fff; --back: #f4f5f8;
  --int8: #2f6db3; --fp16: #c9822b; --fp32: #4f8f5b; --none: #9aa3b2; --bad: #b3362f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 16px; }
h1 { font-size: 22px; margin: 8px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 8px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 14px;
  margin: 14px 0; }
p { margin: 6px 0; color: var(--quiet); font-size: 13px; max-width: 78ch; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; }
.cards div { border-left: 3px solid var(--int8); padding: 2px 0 2px 10px; min-width: 0; }
.cards b { display: block; font-size: 19px; overflow-wrap: anywhere; }
.cards span { color: var(--quiet); font-size: 12.5px; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 12px; }
figure { margin: 0; }
figcaption { font-size: 12.5px; color: var(--quiet); margin-top: 4px; }
figcaption b { color: var(--ink); }
.bev { width: 100%; display: block; background: #10101a; border-radius: 4px; }
.bev image { image-rendering: pixelated; }
.length path { stroke: #fff; fill: none; }
.length text { fill: #fff; }
.boxes { stroke: #00d0ff; fill: none; }
.scale { display: flex; flex-wrap: wrap; justify-content: space-between; max-width: 360px; font-size: 12px;
  color: var(--quiet); margin-top: 10px; }
.scale img { width: 100%; height: 10px; border-radius: 3px; background: #10101a; }
.columns { display: grid; gap: 14px; }
.graph { width: 100%; max-width: 440px; display: block; }
.graph text { font: 12px ui-monospace, monospace; fill: var(--ink); }
.graph text.quiet { fill: var(--quiet); }
.edges path { fill: none; stroke: var(--none); stroke-width: 1.3; }
circle.int8, i.int8 { fill: var(--int8); background: var(--int8); }
circle.fp16, i.fp16 { fill: var(--fp16); background: var(--fp16); }
circle.fp32, i.fp32 { fill: var(--fp32); background: var(--fp32); }
circle.none, i.none { fill: var(--none); background: var(--none); }
i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 12.5px; color: var(--quiet); }
.rows { font-size: 13px; }
.row { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 2px 10px; padding: 6px 0;
  border-top: 1px solid var(--line); align-items: center; }
.row > .name { font: 12.5px ui-monospace, monospace; overflow-wrap: anywhere; }
summary > .name { word-break: break-all; }
.rows.bars .bar { grid-column: 1 / -1; }
.row > .what { color: var(--quiet); }
.row > .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.layers .row > .time { text-align: left; }
.row .unit { color: var(--quiet); }
.head { display: none; color: var(--quiet); font-size: 12px; }
.bar { display: block; height: 7px; border-radius: 3px; background: var(--back); overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--int8); }
.bar.float span { background: var(--fp32); }
.bar.maps span { background: var(--none); }
.bar.noise span { background: var(--fp16); }
summary { cursor: pointer; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary .name::before { content: "▸ "; color: var(--quiet); }
details[open] > summary .name::before { content: "▾ "; }
.inside { padding: 6px 0 12px; display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr));
  gap: 14px; }
.inside p { margin: 2px 0; }
.histogram { width: 100%; max-width: 420px; display: block; }
.histogram text { font: 10px system-ui, sans-serif; fill: var(--quiet); }
.histogram .in { fill: var(--int8); }
.histogram .over { fill: var(--bad); }
.histogram .axis { stroke: var(--line); }
.histogram .range { stroke: var(--bad); stroke-dasharray: 3 2; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
td { border-top: 1px solid var(--line); padding: 5px 8px 5px 0; vertical-align: top;
  overflow-wrap: anywhere; }
td:first-child { color: var(--quiet); width: 11em; overflow-wrap: normal; }
@media (min-width: 760px) {
  .columns { grid-template-columns: 1fr 1fr; align-items: start; }
  .head { display: grid; }
  .layers .row { grid-template-columns: minmax(0, 2.4fr) minmax(0, 2.6fr) 4.5em 5em 6em 8.5em; }
  .layers .row > .time { text-align: right; }
  .rows.bars .bar { grid-column: auto; }
  .head span:nth-child(n + 4) { text-align: right; }
  .columns > section { margin: 0; }
  .bars .row { grid-template-columns: minmax(0, 2.4fr) 7em minmax(0, 3fr); }
}
@media print { section { break-inside: avoid; } details > .inside { display: grid; } }
"""
