"""The frame of a report page: its style sheet, and small pieces that every report is put together from."""

from collections.abc import Sequence
from html import escape

_CSS = """
:root{color-scheme:light dark;--bg:#f7f7f5;--card:#fff;--ink:#1c1f24;--soft:#5b626d;--rule:#dfe1e5;
  --accent:#2456c9;--train:#8c98ab;--warn:#8a4b00;--warnbg:#fff4e0;--good:#14683c;--goodbg:#e7f5ec;
  --heat:242 116 20;--frame:#9c1c3b;--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",
  "Liberation Sans",sans-serif;--serif:Charter,"Iowan Old Style",Georgia,"Liberation Serif",serif;
  --mono:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media screen and (prefers-color-scheme:dark){:root{--bg:#14161a;--card:#1c1f25;--ink:#e7e9ed;
  --soft:#a2a9b5;--rule:#343943;--accent:#86abff;--train:#76829a;--warn:#ffc46b;--warnbg:#33270f;
  --good:#7fd6a1;--goodbg:#14301f;--heat:232 96 10;--frame:#ff9db3}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 var(--sans);
  -webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:40px 20px 64px}
h1{font-size:clamp(1.6rem,4.5vw,2.3rem);line-height:1.15;letter-spacing:-.02em;margin:0 0 6px;
  overflow-wrap:anywhere}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:48px 0 4px}
h3{font-size:.95rem;margin:0}
p{margin:8px 0}
.sub,.note,.empty{color:var(--soft)}
.sub{margin:0 0 20px;overflow-wrap:anywhere}
.note{max-width:75ch;margin:0 0 16px}
.summary{font-size:1.08rem;max-width:72ch}
.verdict{border-left:4px solid var(--good);background:var(--goodbg);padding:10px 16px;
  border-radius:0 8px 8px 0;max-width:82ch;margin:16px 0}
.verdict.warn{border-color:var(--warn);background:var(--warnbg)}
.verdict b:first-child{color:var(--good)}
.verdict.warn b:first-child{color:var(--warn)}
.verdict ul{margin:6px 0 0;padding-left:20px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(215px,1fr));gap:12px;margin:16px 0}
.card,.tile,.passage{background:var(--card);border:1px solid var(--rule);border-radius:10px}
.tile{padding:14px 16px}
.tile .name{font-size:.85rem;color:var(--soft)}
.tile .value{font-size:1.9rem;line-height:1.25;font-weight:650;letter-spacing:-.02em;
  font-variant-numeric:tabular-nums}
.tile .beside{font-size:.85rem;color:var(--soft);margin-top:6px;line-height:1.4;overflow-wrap:anywhere}
.tile.main{border-color:var(--accent);box-shadow:inset 0 3px 0 var(--accent)}
.meter{position:relative;height:6px;border-radius:3px;background:var(--rule);margin-top:6px}
.meter i{position:absolute;inset:0 auto 0 0;border-radius:3px;background:var(--accent)}
.meter em{position:absolute;top:-3px;bottom:-3px;width:2px;background:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(310px,100%),1fr));gap:12px}
.card{padding:14px 14px 8px;margin:0;min-width:0}
.card figcaption{display:flex;justify-content:space-between;gap:8px;align-items:baseline}
.card .last{color:var(--accent);font-weight:650;font-variant-numeric:tabular-nums;white-space:nowrap}
.card .note{font-size:.8rem;margin:0;min-height:2.6em;line-height:1.35}
.chart{display:block;width:100%;height:auto;overflow:visible}
.chart .grid{stroke:var(--rule);stroke-width:1}
.chart .tick{fill:var(--soft);font:10.5px var(--sans)}
.line{fill:none;stroke-linejoin:round;stroke-linecap:round}
.line.train{stroke:var(--train);stroke-width:1.1}
.line.validation{stroke:var(--accent);stroke-width:2.1}
.line.baseline{stroke:var(--ink);stroke-width:1.3;stroke-dasharray:5 4;stroke-linecap:butt;opacity:.75}
.line.published{stroke:var(--good);stroke-width:1.6;stroke-dasharray:1.5 3.5}
.line.failed{stroke:var(--warn);stroke-width:1.5;stroke-dasharray:2 3}
.dot.failed{fill:var(--warn)}
.dot.scattered{fill:var(--accent);fill-opacity:.55}
.dot.train{fill:var(--train)}
.dot.validation{fill:var(--accent)}
.dot.baseline{fill:var(--ink)}
.hit{fill:transparent;stroke:none}
.keys{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.88rem;color:var(--soft);margin:0 0 12px}
.keys svg{width:30px;height:10px;vertical-align:middle;margin-right:6px}
.legend{list-style:none;padding:14px 18px;margin:12px 0 20px;background:var(--card);
  border:1px solid var(--rule);border-radius:10px;display:grid;gap:8px;font-size:.93rem}
.legend .t,.legend s{font-family:var(--serif)}
.scale{display:inline-block;width:74px;height:14px;border-radius:3px;border:1px solid var(--rule);
  vertical-align:-2px;background:linear-gradient(90deg,transparent,rgb(var(--heat)/.8))}
.passages{columns:2 430px;column-gap:14px}
.passage{margin:0 0 14px;padding:16px 18px 12px;break-inside:avoid}
.passage p{font:1.02rem/1.95 var(--serif);margin:0;overflow-wrap:anywhere}
.passage figcaption{font-size:.82rem;color:var(--soft);border-top:1px solid var(--rule);margin-top:12px;
  padding-top:8px}
.passage figcaption b{color:var(--ink)}
.t{background:rgb(var(--heat)/calc(var(--p)*.8));border-radius:3px;padding:.1em 0;
  print-color-adjust:exact;-webkit-print-color-adjust:exact}
.t.rep{border:1.6px solid var(--frame);padding:.02em .18em;font-weight:650;
  display:inline-block;max-width:100%;line-height:1.2}
.t.rep.missed{border-style:dashed}
.t.hit{text-decoration:underline dotted 2px;text-underline-offset:4px;text-decoration-color:var(--soft)}
.t.special{font:600 .62rem var(--sans);color:var(--soft);padding:.25em .35em;vertical-align:.12em}
.t+s{color:var(--soft);font-size:.9em;margin-left:.22em;text-decoration:line-through 1px var(--frame)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--rule);vertical-align:top}
th{font-weight:500;color:var(--soft)}
thead th{font-weight:650;color:var(--ink)}
td.num,th.num{text-align:right;padding-right:14px}
.scroll.matrix{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:14px}
.matrix table{width:auto;font-size:.85rem}
.charts.single{max-width:560px}
.matrix th,.matrix td{border:0;padding:4px 6px;text-align:right;vertical-align:middle;white-space:nowrap}
.matrix th span{display:block;max-width:13em;max-height:13em;overflow:hidden;text-overflow:ellipsis}
.matrix td{text-align:center}
.matrix thead th{vertical-align:bottom}
.matrix thead th+th{text-align:center}
.matrix thead th.turned span{writing-mode:vertical-rl;transform:rotate(180deg);margin:auto}
.matrix td.cell{min-width:2.4em;border:1px solid var(--bg);
  background:rgb(var(--heat)/calc(var(--p)*.75));print-color-adjust:exact;-webkit-print-color-adjust:exact}
.matrix td.right{background:color-mix(in srgb,var(--accent) calc(var(--p)*60%),transparent)}
.errors{list-style:none;margin:12px 0;padding:0;display:grid;gap:10px}
.error{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 16px;min-width:0}
.error .said{font-size:.9rem;margin:0 0 6px;overflow-wrap:anywhere}
.error .said b{color:var(--frame)}
.error .said b.gold{color:var(--good)}
.error .sure{float:right;margin-left:12px;color:var(--soft);font-size:.85rem;font-variant-numeric:tabular-nums}
.error .text{font:1rem/1.6 var(--serif);margin:4px 0;white-space:pre-line;overflow-wrap:anywhere}
.error .text small{font:.75rem var(--sans);color:var(--soft);margin-right:6px}
.error mark{background:none;color:inherit;border:1.5px solid var(--frame);border-radius:3px;padding:0 .15em}
.error mark small{margin:0 0 0 5px;color:var(--ink)}
.strip{display:block;width:100%;max-width:760px;height:auto}
.strip text{fill:var(--ink);font:13px var(--sans)}
.strip .tick{fill:var(--soft);font-size:11px}
.strip .bar{fill:var(--train);opacity:.3}
.strip .main .bar{fill:var(--accent)}
.strip circle{fill:var(--train)}
.strip .main circle{fill:var(--accent)}
.strip circle.failed{fill:none;stroke:var(--warn);stroke-width:1.6}
.strip .median{stroke:var(--ink);stroke-width:2}
.strip .grid{stroke:var(--rule)}
details{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:0 18px;
  margin:12px 0}
summary{cursor:pointer;font-weight:650;padding:12px 0}
details[open]{padding-bottom:16px}
pre{background:var(--bg);border:1px solid var(--rule);border-radius:8px;padding:12px;overflow-x:auto;
  font:.84rem/1.5 var(--mono);white-space:pre-wrap;overflow-wrap:anywhere;margin:6px 0 16px}
td code{font:.86rem var(--mono);overflow-wrap:anywhere}
footer{margin-top:48px;font-size:.85rem;color:var(--soft)}
@media (max-width:520px){main{padding:24px 14px 48px}.tiles{grid-template-columns:1fr 1fr;gap:8px}
  .tile{padding:12px}.tile .value{font-size:1.5rem}.card .note{min-height:0}.passage{padding:14px}}
@media print{@page{margin:14mm}body{font-size:11pt;background:#fff}main{padding:0;max-width:none}.tile,
  .card,h2,tr{break-inside:avoid}h2,.legend{break-after:avoid}.passages{columns:auto}}
"""


def page_html(title: str, body: str) -> str:
    """A whole HTML document around `body` (markup; `title` is plain text) that loads nothing from outside."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def tile_html(name: str, value: str, beside: str, *, share: float | None, mark: float | None, main: bool) -> str:
    """A key figure: its name, its value, and what to read beside it (all plain text).

    Args:
      name: what it is.
      value: the number as it is shown.
      beside: what the number must be compared with.
      share: the value in [0, 1] for a bar under it, None for no bar.
      mark: where in [0, 1] the comparison stands on that bar, None for no mark.
      main: whether this tile is the first to look at.
    """
    bar = ""
    if share is not None:
        at = "" if mark is None else f'<em style="left:calc({100 * mark:.1f}% - 1px)"></em>'
        bar = f'<div class="meter" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i>{at}</div>'
    return (
        f'<div class="tile{" main" if main else ""}"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div>{bar}<div class="beside">{escape(beside)}</div></div>'
    )


def table_html(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text: the first column names the row, the others are numbers aligned to the right."""
    head = "".join(f"<th{'' if i == 0 else ' class=num'}>{escape(text)}</th>" for i, text in enumerate(header))
    body = ""
    for name, *cells in rows:
        body += f"<tr><th>{escape(name)}</th>"
        body += "".join(f"<td class=num>{escape(cell)}</td>" for cell in cells) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
