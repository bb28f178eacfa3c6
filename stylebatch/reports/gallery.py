"""Writes an output directory as one self-contained HTML page to look through.

Each input is embedded once, as a CSS background that every card of it shares. The page loads nothing and its policy forbids it to.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from stylebatch.reports.contact_sheet import Pictures, load_pictures, short_names, spread_indices
from stylebatch.reports.records import (
    QUALITY,
    Row,
    columns_of,
    committed_shards,
    inputs_of,
    read_rows,
    read_run,
)
from stylebatch.store.commit import write_bytes

RESULT_SIDE = 256
INPUT_SIDE = 160
MAX_FAILURES = 500


def gallery(output: Path, *, max_samples: int = 400) -> Path:
    """Write OUTPUT/gallery.html from the committed shards; the same records give the same bytes.

    Shows up to `max_samples` successful samples, evenly spaced in key order, and the first 500 failed ones as a table.
    """
    num_success = sum(shard.num_success for shard in committed_shards(output))
    chosen = set(spread_indices(num_success, max_samples))
    shown: list[Row] = []
    failed: list[Row] = []
    place = 0
    for row in read_rows(output, columns_of(output)):
        if row["status"] != "success":
            failed += [row] if len(failed) < MAX_FAILURES else []
            continue
        if place in chosen:
            shown.append(row)
        place += 1
    path = output / "gallery.html"
    write_bytes(path, _page(output, shown, failed).encode())
    return path


def _page(output: Path, shown: Sequence[Row], failed: Sequence[Row]) -> str:
    run, shards = read_run(output), committed_shards(output)
    num_success = sum(shard.num_success for shard in shards)
    num_failed = sum(shard.num_failed for shard in shards)
    pictures = load_pictures(output, shown, RESULT_SIDE)
    columns = columns_of(output)
    inputs = [
        _Inputs(kind, column, pictures.inputs[kind], (row[column] for row in shown))
        for kind, column, _ in inputs_of(columns)
    ]
    groups = _Groups(columns, shown)
    cards = "\n".join(_card(row, pictures, inputs, groups, n) for n, row in enumerate(shown))
    title = escape(str(run.get("name", "stylebatch")))
    summary = " · ".join(
        escape(part) for part in _summary(run, len(shards), num_success, num_failed)
    )
    part = (
        f"<p>Shows {len(shown):,} of {num_success:,} samples, evenly spaced in key order.</p>"
        if len(shown) < num_success
        else ""
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>{STYLE}{"".join(one.css() for one in inputs)}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{summary}</p>
{part}
</header>
{_controls(shown, groups, columns)}
<main id="cards">
{cards}
</main>
{_failures(failed, num_failed)}
<script>{SCRIPT}</script>
</body>
</html>
"""


def _summary(
    run: dict[str, Any], num_shards: int, num_success: int, num_failed: int
) -> Iterable[str]:
    plan = run.get("plan", {})
    is_pairs = "num_contents" in plan
    what = "pairs" if is_pairs else "samples"
    yield f"{num_success:,} of {plan.get('num_pairs', 0):,} {what} rendered"
    if num_failed:
        yield f"{num_failed:,} failed"
    if num_shards < plan.get("num_shards", 0):
        yield f"{num_shards:,} of {plan['num_shards']:,} shards committed"
    if is_pairs:
        yield f"{plan['num_contents']:,} contents, {plan.get('num_styles', 0):,} styles"
    elif "num_sets" in plan:
        yield f"{plan['num_sets']:,} sets"
    yield f"model {run.get('model', '')}"
    yield f"plan {str(run.get('digest', ''))[:12]}"


class _Inputs:
    """The contents, styles, ... of a page: CSS classes for their images, short names for their ids."""

    def __init__(
        self, kind: str, column: str, pictures: dict[str, Image.Image], ids: Iterable[str]
    ) -> None:
        self.kind, self.column, self.pictures = kind, column, pictures
        self.names = short_names(ids)
        self.classes = {name: f"{kind[0]}{number}" for number, name in enumerate(self.names)}

    def css(self) -> str:
        return "".join(
            f".{self.classes[name]}{{background-image:url({_data_uri(picture, INPUT_SIDE)})}}\n"
            for name, picture in self.pictures.items()
        )

    def figure(self, name: str) -> str:
        title, label = escape(name), escape(self.names[name])
        image = f'<div class="input {self.classes[name]}" role="img" aria-label="{self.kind} {title}"></div>'
        legend = f'<figcaption title="{title}"><b>{self.kind}</b> {label}</figcaption>'
        return f"<figure>{image if name in self.pictures else ''}{legend}</figure>"


class _Groups:
    """What the style filter chooses by: the style of a pair, or the set of a row. `column`: "" where there is none."""

    def __init__(self, columns: Sequence[str], shown: Sequence[Row]) -> None:
        found = [name for name in ("style_id", "style") if name in columns]
        self.column = found[0] if found else ""
        ids = (row[self.column] for row in shown) if found else ()
        self.names = short_names(ids)
        self.classes = {name: f"s{number}" for number, name in enumerate(self.names)}

    def of(self, row: Row) -> str:
        return self.classes[row[self.column]] if self.column else ""


def _card(
    row: Row, pictures: Pictures, inputs: Sequence[_Inputs], groups: _Groups, number: int
) -> str:
    label, key, caption = (escape(row[name]) for name in ("label", "key", "caption"))
    told = [row[name] for name in ("key", *(one.column for one in inputs), "label", "caption")]
    told += [row["prompt"]] if "prompt" in row else []
    text = escape(" ".join(told).lower())
    columns = {column: facts for column, facts in QUALITY.items() if column in row}
    scores = "".join(
        f'<div title="{meaning}"><dt>{name}</dt><dd>{row[column]:.{digits}f}</dd></div>'
        for column, (name, digits, meaning) in columns.items()
    )
    ranks = "".join(f' data-{column}="{row[column]:.6g}"' for column in columns)
    figures = "".join(one.figure(row[one.column]) for one in inputs)
    return f"""<article data-order="{number}" data-text="{text}" data-style="{groups.of(row)}" data-label="{label}"{ranks}>
<img src="{_data_uri(pictures.results[row["key"]], RESULT_SIDE)}" alt="{_shown(row)}" loading="lazy" decoding="async">
{f'<div class="inputs">{figures}</div>' if figures else ""}
<p class="key"><span>{key}</span>{f'<span class="label">{label}</span>' if label else ""}</p>
{f'<p class="caption">{caption}</p>' if caption else ""}
<dl>{scores}</dl>
<p class="parameters">{escape(_parameters(row))}</p>
</article>"""


def _shown(row: Row) -> str:
    """What a result is a picture of."""
    if "content_id" in row:
        return f"{escape(row['content_id'])} in the style of {escape(row['style_id'])}"
    return escape(row["prompt"])


def _parameters(row: Row) -> str:
    """`styleid ldm, 50 steps, start paper, gamma 0.75, tau 1.5, sites 6 to 11`, with what is switched off; of prompts all."""
    if "convention" not in row:
        return ", ".join([row["method"], f"seed {row['seed']}", *_options(row)])
    start = [f"start {row['start']}"] if row["start"] else []
    sites = list(row["sites"])
    run = len(sites) > 1 and sites == list(range(sites[0], sites[-1] + 1))
    shown_sites = f"{sites[0]} to {sites[-1]}" if run else ", ".join(map(str, sites))
    parts = [
        f"{row['method']} {row['convention']}",
        f"{row['steps']} steps",
        *start,
        f"gamma {row['gamma']:g}",
        f"tau {row['tau']:g}",
        f"sites {shown_sites}",
    ]
    parts += [] if row["init_adain"] else ["no initial AdaIN"]
    parts += [] if row["inject"] else ["no injection"]
    return ", ".join([*parts, *_beyond_the_paper(row)])


def _beyond_the_paper(row: Row) -> Iterator[str]:
    """`cosine gammas down to 0.5 of themselves`, `solver ab2`, ..., of records that tell so."""
    if row.get("gamma_schedule", "constant") != "constant":
        yield f"{row['gamma_schedule']} gammas down to {row['gamma_end_share']:g} of themselves"
    if len(set(row.get("site_gammas", ()))) > 1:
        yield f"gammas {', '.join(f'{gamma:g}' for gamma in row['site_gammas'])} by site"
    for name, usual in (("grid", "stride"), ("solver", "ddim"), ("inversion", "ddim")):
        if row.get(name, usual) != usual:
            yield f"{name} {row[name]}"
    if len(images := row.get("style_images", ())) > 1:
        shares = zip(row["style_weights"], images, strict=True)
        yield f"{row['blend']} of {' and '.join(f'{weight:g} {name}' for weight, name in shares)}"
    if row.get("mask_id"):
        yield f"mask {row['mask_id']}"


def _options(row: Row) -> Iterator[str]:
    """Options of a method of prompts: the columns between seed and width."""
    names = list(row)
    for name in names[names.index("seed") + 1 : names.index("width")]:
        value = row[name]
        if isinstance(value, bool):
            yield from [name.replace("_", " ")] if value else []
        elif value != "":
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            yield f"{name.replace('_', ' ')} {shown}"


def _controls(shown: Sequence[Row], groups: _Groups, columns: Sequence[str]) -> str:
    style_options = "".join(
        f'<option value="{groups.classes[name]}">{escape(short)}</option>'
        for name, short in sorted(groups.names.items(), key=lambda pair: pair[1])
    )
    style_filter = f'<label>Style<select id="style"><option value="">all</option>{style_options}</select></label>\n'
    labels = sorted({row["label"] for row in shown} - {""})
    label_options = "".join(
        f'<option value="{escape(label)}">{escape(label)}</option>' for label in labels
    )
    label_filter = f'<label>Label<select id="label"><option value="">all</option>{label_options}</select></label>'
    orders = "".join(
        f'<option value="{column} -1">{name}, high first</option><option value="{column} 1">{name}, low first</option>'
        for column, (name, _, _) in QUALITY.items()
        if column in columns
    )
    return f"""<form id="controls" aria-label="Filter and sort">
<label>Search<input id="text" type="search" placeholder="id, label or caption" autocomplete="off"></label>
{style_filter if groups.column else ""}{label_filter if labels else ""}
<label>Sort<select id="sort"><option value="order 1">key</option>{orders}</select></label>
<output id="count" aria-live="polite">{len(shown):,} shown</output>
</form>"""


def _failures(failed: Sequence[Row], num_failed: int) -> str:
    if not failed:
        return ""
    columns = {
        "key": "Key",
        "content_id": "Content",
        "style_id": "Style",
        "prompt": "Prompt",
        "error_code": "Code",
        "error_message": "Reason",
    }
    columns = {name: heading for name, heading in columns.items() if name in failed[0]}
    head = "".join(f'<th scope="col">{name}</th>' for name in columns.values())
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(row[column])}</td>" for column in columns) + "</tr>"
        for row in failed
    )
    note = (
        f"<p>The first {len(failed):,} of {num_failed:,}; all are in metadata/errors.parquet.</p>"
        if len(failed) < num_failed
        else ""
    )
    return f"""<section aria-labelledby="failed">
<h2 id="failed">Failed samples</h2>
{note}
<div class="scroll" tabindex="0" role="region" aria-labelledby="failed"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
</section>"""


def _data_uri(picture: Image.Image, side: int) -> str:
    """JPEG of the picture, at most `side` pixels."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)

STYLE = """
:root { color-scheme: light dark; --ground: #f6f6f4; --card: #fff; --ink: #1d1d1f; --muted: #62625f; --line: #dededa; --accent: #2b5fd0 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #161618; --card: #212124; --ink: #ededee; --muted: #a3a3a8; --line: #38383d; --accent: #8ab0ff }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 100rem; padding: 1.5rem;
  background: var(--ground); color: var(--ink); font: 15px/1.45 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere }
h2 { margin: 2rem 0 .5rem; font-size: 1.15rem }
header p { margin: .25rem 0 0; color: var(--muted); overflow-wrap: anywhere }
form { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end;
  margin: 1rem -1.5rem; padding: .6rem 1.5rem; background: var(--ground); border-bottom: 1px solid var(--line) }
form label { display: grid; gap: .15rem; font-size: .8rem; color: var(--muted) }
form output { margin-left: auto; color: var(--muted); font-variant-numeric: tabular-nums }
input, select { min-width: 9rem; max-width: 16rem; padding: .35rem .5rem; font: inherit; color: var(--ink);
  background: var(--card); border: 1px solid var(--line); border-radius: 6px }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1rem }
article { display: flex; flex-direction: column; min-width: 0; overflow: hidden;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px }
article[hidden] { display: none }
article > img { display: block; width: 100%; height: auto }
article > p, article > dl { margin: 0; padding: 0 .75rem }
.inputs { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; margin-top: 2px }
figure { margin: 0; min-width: 0 }
.input { aspect-ratio: 1; background: center / cover }
figcaption { padding: .3rem .75rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: .8rem }
figcaption b { display: block; font-weight: 400; font-size: .7rem; color: var(--muted) }
.key { display: flex; justify-content: space-between; gap: .5rem;
  padding-top: .2rem !important; font-size: .8rem; color: var(--muted); font-variant-numeric: tabular-nums }
.label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  padding: 0 .45rem; border: 1px solid var(--line); border-radius: 1rem }
.caption { font-size: .85rem; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: repeat(3, auto); justify-content: space-between; gap: .5rem; padding-block: .4rem !important }
dt { font-size: .7rem; color: var(--muted) }
dd { margin: 0; font-variant-numeric: tabular-nums }
.parameters { margin-top: auto !important; padding-bottom: .7rem !important; font-size: .75rem; color: var(--muted) }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px }
table { border-collapse: collapse; width: 100%; font-size: .85rem }
th, td { padding: .4rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
tr:last-child td { border-bottom: 0 }
th { color: var(--muted); font-weight: 500 }
td { overflow-wrap: anywhere }
td:first-child { white-space: nowrap; font-variant-numeric: tabular-nums }
"""

SCRIPT = """
const cards = [...document.querySelectorAll("article")];
const control = (id) => document.getElementById(id);
const value = (id) => (control(id) ? control(id).value : "");
function filter() {
  const text = value("text").trim().toLowerCase(), style = value("style"), label = value("label");
  let count = 0;
  for (const card of cards) {
    const data = card.dataset;
    card.hidden = !(data.text.includes(text) && (!style || data.style === style) && (!label || data.label === label));
    count += !card.hidden;
  }
  control("count").textContent = count.toLocaleString("en") + " shown";
}
function sort() {
  const [column, sign] = value("sort").split(" ");
  const ordered = cards.slice().sort((a, b) => sign * (a.dataset[column] - b.dataset[column]) || a.dataset.order - b.dataset.order);
  control("cards").append(...ordered);
}
control("controls").addEventListener("submit", (event) => event.preventDefault());
control("controls").addEventListener("input", filter);
control("sort").addEventListener("input", sort);
filter();
sort();
"""
