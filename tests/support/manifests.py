"""Manifests that hypothesis draws over a few small pictures, two of which cannot be read, and what a run of each must hold.

A `Drawn` is plain values, so that a failing one can be written down; `write` makes its files and its manifest.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.support.images import picture

BAD = "bad.png"
CONTENTS = ("c0.png", "c1.png", "c2.png", "c3.png", "c4.png", BAD)
STYLES = ("s0.png", "s1.png", "s2.png", "s3.png", BAD)
HALF, ODD = "half.png", "odd.png"
"""Masks of contents: one of their size, and one of other proportions, which costs its sample."""
SIZE = (48, 40)

Row = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """A sample that a manifest asks for, by names, and whether it can be made.

    With prompts `content` is the prompt and the image it is for, and `style` the set.
    """

    content: str
    style: str
    label: str
    caption: str
    is_good: bool


@dataclass(frozen=True)
class Drawn:
    """A manifest: its sections, its tables by file name, the pictures it copies, and the samples of its whole run.

    `asked`: every sample that may be, as often as it may be; `per_content`: how many of them each content has, where they
    are drawn. `limit`: of a preview.
    """

    sections: dict[str, Any]
    tables: dict[str, list[Row]] = field(default_factory=dict)
    copies: tuple[tuple[str, str], ...] = ()
    asked: tuple[Asked, ...] = ()
    per_content: int | None = None
    limit: int | None = None

    @property
    def counts(self) -> Counter[Asked]:
        return Counter(self.asked)

    @property
    def num_asked(self) -> int:
        """Samples of the whole run."""
        if self.per_content is None:
            return len(self.asked)
        return len({one.content for one in self.asked}) * self.per_content

    def write(self, folder: Path, pool: Path) -> Path:
        """The manifest, with its inputs, in the empty `folder`; `pool`: as `write_pool` leaves it."""
        for source, target in self.copies:
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pool / source, folder / target)
        for name, rows in self.tables.items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(rows)
        manifest = folder / "m.yaml"
        sections = self.sections | {
            "output": {"path": str(folder / "out"), **self.sections["output"]}
        }
        if sections["features"].get("source") == "cached":
            sections["features"] = {"source": "cached", "cache": str(folder / "cache")}
        manifest.write_text(json.dumps(sections), encoding="utf-8")
        return manifest


def write_pool(folder: Path) -> Path:
    """The pictures that manifests are drawn over."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate((*CONTENTS, *STYLES)):
        if name == BAD:
            (folder / name).write_bytes(b"no picture")
        else:
            picture(index, *_size_of(name)).save(folder / name)
    for name, size in ((HALF, SIZE), (ODD, SIZE[::-1])):
        mask = Image.new("L", size, 0)
        ImageDraw.Draw(mask).rectangle((0, 0, size[0] // 2, size[1]), fill=255)
        mask.save(folder / name)
    return folder


def _size_of(name: str) -> tuple[int, int]:
    """Contents have one shape in two sizes, so that one mask fits them all; styles have several shapes."""
    number = int(name[1]) if name[1].isdigit() else 0
    if name in STYLES:
        return ((48, 40), (40, 72), (90, 40))[number % 3]
    return SIZE[0] * (1 + number % 2), SIZE[1] * (1 + number % 2)


IMAGES: tuple[dict[str, Any], ...] = (
    {"size": 32},
    {"size": 32, "mode": "pad"},
    {"size": 32, "mode": "keep"},
    {"size": 64, "mode": "fit"},
)
"""Ways to fit images; with `keep` contents have two sizes, with both of the last two styles have sizes of their own."""
words = st.sampled_from(["", "", "a", "b", "2", "näh, ja"])
"""Labels and captions, often none."""


@st.composite
def orders(draw: st.DrawFn, names: Sequence[str], most: int) -> list[str]:
    """Some of the names, each once, in any order; as often many as few."""
    return list(draw(st.permutations(names)))[: draw(st.integers(1, most))]


@st.composite
def pair_manifests(draw: st.DrawFn) -> Drawn:
    """Runs of pairs: pairing x order x sizes x labels x blends x masks x shards x batches x limits x failing pictures."""
    mode = draw(st.sampled_from(["product", "zip", "blocks", "independent", "explicit", "paths"]))
    contents, styles = draw(_contents(is_plain=mode == "paths")), draw(_styles(mode == "paths"))
    if mode == "zip":
        count = min(len(contents.rows), len(styles.rows))
        contents, styles = contents.first(count), styles.first(count)
    given = {} if mode == "paths" else {"contents": contents, "styles": styles}
    sections = draw(_settings()) | {name: {"path": side.path} for name, side in given.items()}
    tables = {side.path: side.table for side in given.values() if side.table}
    per_content, pairs = None, []
    if mode in ("explicit", "paths"):
        rows = st.fixed_dictionaries(
            {
                "content": st.sampled_from(sorted(contents.rows)),
                "style": st.sampled_from(sorted(styles.rows)),
                "label": words,
                "caption": words,
            }
        )
        count = draw(st.integers(1, 14))
        pairs = draw(st.lists(rows, min_size=count, max_size=count))
        tables["pairs.csv"] = list(pairs)
        sections["pairing"] = {"mode": "explicit", "path": "pairs.csv"}
        asked = [_asked(contents, styles, row) for row in pairs]
    elif mode == "zip":
        sections["pairing"] = {"mode": "zip"}
        both = zip(contents.rows, styles.rows, strict=True)
        asked = [_asked(contents, styles, {"content": c, "style": s}) for c, s in both]
    else:
        product = [(c, s) for c in contents.rows for s in styles.rows]
        asked = [_asked(contents, styles, {"content": c, "style": s}) for c, s in product]
        if mode != "product":
            per_content = draw(st.integers(1, len(styles.rows)))
            pool = "block" if mode == "blocks" else mode
            sections["pairing"] = {"mode": "sample", "per_content": per_content, "pool": pool}
    return Drawn(
        sections,
        tables,
        (*contents.copies, *styles.copies),
        tuple(asked),
        per_content,
        draw(st.none() | st.integers(1, 8)),
    )


@dataclass(frozen=True)
class Side:
    """Contents or styles: what is known of each by id, in the run's order; a folder, or a table of them."""

    path: str
    rows: dict[str, tuple[str, str, bool]]
    """Label, caption, and whether it can be read."""
    copies: tuple[tuple[str, str], ...]
    table: list[Row] = field(default_factory=list)

    def first(self, count: int) -> Side:
        """The first `count` of them."""
        names = list(self.rows)[:count]
        kept = {f"{self.path}/{name}" for name in names}
        copies = tuple(pair for pair in self.copies if self.table or pair[1] in kept)
        table = [row for row in self.table if row.get("blend") or row["path"] in names]
        table = [row for row in table if (row.get("blend") or row["path"]) in names]
        return Side(self.path, {name: self.rows[name] for name in names}, copies, table)


def _asked(contents: Side, styles: Side, row: Row) -> Asked:
    label, caption, content_is_good = contents.rows[row["content"]]
    *_, style_is_good = styles.rows[row["style"]]
    return Asked(
        row["content"],
        row["style"],
        row.get("label") or label,
        row.get("caption") or caption,
        content_is_good and style_is_good,
    )


@st.composite
def _contents(draw: st.DrawFn, *, is_plain: bool) -> Side:
    names = draw(orders(CONTENTS, 5))
    if is_plain:
        return Side("", {name: ("", "", name != BAD) for name in names}, _copies(names))
    if draw(st.booleans()):
        return _folder("contents", {name: draw(st.sampled_from(["", "x", "y"])) for name in names})
    rows = [
        {
            "path": name,
            "label": draw(words),
            "caption": draw(words),
            "mask": draw(st.sampled_from(["", "", HALF, ODD])),
        }
        for name in names
    ]
    if draw(st.booleans()):
        rows = [{**row, "mask": ""} for row in rows]
    known = {
        row["path"]: (row["label"], row["caption"], row["path"] != BAD and row["mask"] != ODD)
        for row in rows
    }
    return Side("contents.csv", known, _copies([*names, HALF, ODD]), list(rows))


@st.composite
def _styles(draw: st.DrawFn, is_plain: bool) -> Side:
    names = draw(orders(STYLES, 4))
    copies = _copies(names)
    if is_plain:
        return Side("", {name: ("", "", name != BAD) for name in names}, copies)
    if draw(st.booleans()):
        return _folder("styles", dict.fromkeys(names, ""))
    rows: list[Row] = [{"path": name, "blend": "", "weight": ""} for name in names]
    known = {name: ("", "", name != BAD) for name in names}
    for blend in ("dawn", "dusk")[: draw(st.integers(0, 2))]:
        parts = draw(st.permutations(STYLES))[:2]
        share = draw(st.sampled_from([0.25, 0.5]))
        place = draw(st.integers(0, len(rows)))
        both = [
            {"path": part, "blend": blend, "weight": str(weight)}
            for part, weight in zip(parts, (share, 1 - share), strict=True)
        ]
        rows[place:place] = both
        known[blend] = ("", "", BAD not in parts)
        copies += _copies(parts)
    order = dict.fromkeys(row["blend"] or row["path"] for row in rows)
    return Side("styles.csv", {name: known[name] for name in order}, copies, rows)


def _folder(path: str, labels: Mapping[str, str]) -> Side:
    """Pictures in a folder, those with a label below one of this name; files come before folders."""
    names = sorted(labels, key=lambda name: (labels[name], name))
    ids = {f"{labels[name]}/{name}".lstrip("/"): name for name in names}
    return Side(
        path,
        {id_: (labels[name], "", name != BAD) for id_, name in ids.items()},
        tuple((name, f"{path}/{id_}") for id_, name in ids.items()),
    )


def _copies(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


@st.composite
def _settings(draw: st.DrawFn, methods: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What every manifest has, and what changes how it is cut."""
    styleid = {"name": "styleid", "steps": 2}
    method = draw(st.sampled_from(methods or [styleid, styleid | {"inject": False}]))
    sources = [] if methods else ["held", "recomputed", "cached"]
    return {
        "name": "drawn",
        "model": "tiny",
        "method": method,
        "image": draw(st.sampled_from(IMAGES)),
        "engine": {
            "name": "local",
            "threads": 1,
            "batch": draw(st.integers(1, 5)),
            "feature_gb": draw(st.sampled_from([0.0005, 8.0])),
        },
        "features": {"source": draw(st.sampled_from(sources))} if sources else {},
        "output": {"shard_size": draw(st.integers(1, 7)), "image": {"format": "png"}},
        "max_failed_fraction": 1.0,
    }


PROMPTS = ("a cat", "a dog", "a red barn")
TEXT2IMG: dict[str, Any] = {"name": "text2img", "steps": 2, "guidance": 3}
IMG2IMG: dict[str, Any] = {"name": "img2img", "steps": 2, "guidance": 1, "strength": 0.6}
INPAINT: dict[str, Any] = {"name": "inpaint", "steps": 2, "guidance": 3, "scheduler": "dpmpp"}
ALIGNED: dict[str, Any] = {"name": "stylealigned", "steps": 2, "guidance": 3}


@st.composite
def prompt_manifests(draw: st.DrawFn) -> Drawn:
    """Runs of prompts: method x rows or template x sets x contents x labels x shards x batches x limits x failing pictures."""
    sections = draw(_settings([TEXT2IMG, IMG2IMG, INPAINT, ALIGNED]))
    name = sections["method"]["name"]
    columns = {"img2img": ["image"], "inpaint": ["image", "mask"]}.get(name, [])
    source: dict[str, Any] = {"per_prompt": draw(st.sampled_from([1, 1, 2]))}
    images: list[Row] = [{}]
    tables: dict[str, list[Row]] = {}
    if columns and draw(st.booleans()):
        images = draw(_images(columns))
        tables["contents.csv"] = [{**row, "path": row["image"]} for row in images]
        for row in tables["contents.csv"]:
            del row["image"]
        sections["contents"] = {"path": "contents.csv"}
        columns = []
    if draw(st.booleans()):
        rows = draw(_rows(columns, is_aligned=name == "stylealigned"))
        tables["rows.csv"] = rows
        source["path"] = "rows.csv"
    else:
        looks, animals = draw(orders(("dark", "old", "new"), 3)), draw(orders(PROMPTS, 2))
        source |= {"template": "{animal} {look}", "values": {"look": looks, "animal": animals}}
        source |= {"label": "look"} if draw(st.booleans()) else {}
        source |= {"style": "look"} if name == "stylealigned" else {}
        source |= {"image": draw(st.sampled_from(["c0.png", BAD]))} if "image" in columns else {}
        source |= {"mask": HALF} if "mask" in columns else {}
        rows = [
            {"prompt": f"{animal} {look}"}
            | {key: look for key in ("label", "style") if key in source}
            | {key: source[key] for key in columns}
            for look in looks
            for animal in animals
        ]
    asked = [
        _prompted({**image, **{k: v for k, v in row.items() if v}})
        for image in images
        for row in rows
    ]
    return Drawn(
        sections | {"prompts": source},
        tables,
        _copies([*CONTENTS, *STYLES, HALF, ODD]),
        tuple(one for one in asked for _ in range(source["per_prompt"])),
        limit=draw(st.none() | st.integers(1, 6)),
    )


def _prompted(row: Row) -> Asked:
    """The sample that a row asks for."""
    is_good = BAD not in (row.get("image"), row.get("reference")) and row.get("mask") != ODD
    content = f"{row['prompt']} {row.get('image', '')}"
    caption = row.get("caption") or row["prompt"]
    return Asked(content, row.get("style", ""), row.get("label", ""), caption, is_good)


@st.composite
def _images(draw: st.DrawFn, columns: Sequence[str]) -> list[Row]:
    """Contents that each row of prompts is for."""
    masks = st.sampled_from([HALF, HALF, ODD] if "mask" in columns else [""])
    return [
        {"image": name, "label": draw(words), "mask": draw(masks)}
        for name in draw(orders(CONTENTS, 3))
    ]


@st.composite
def _rows(draw: st.DrawFn, columns: Sequence[str], *, is_aligned: bool) -> list[Row]:
    """Rows of prompts; those of a set have one reference, or none and take their style from the first."""
    count = draw(st.integers(1, 6 if columns or is_aligned else 4))
    pictures = {"image": st.sampled_from(CONTENTS), "mask": st.sampled_from([HALF, HALF, ODD])}
    references = {
        own: draw(st.sampled_from(["", "s0.png", BAD])) if is_aligned else "" for own in "st"
    }
    rows: list[Row] = []
    for _ in range(count):
        row = {
            "prompt": draw(st.sampled_from(PROMPTS)),
            "label": draw(words),
            "caption": draw(words),
            "seed": draw(st.sampled_from(["", "7", "123456789012"])),
        }
        row |= {name: draw(pictures[name]) for name in columns}
        if is_aligned:
            own = draw(st.sampled_from("st"))
            row |= {"style": own, "reference": references[own]}
        rows.append(row)
    return rows


def _png(row: str) -> list[str]:
    return [f"{name}.png" for name in row.split()]


_LISTED = ("c0 s0", "c1 s1", "c0 s2", "c2 s2", "c1 s0", "c2 s1", "c1 s0")
OUT_OF_ORDER = Drawn(
    {
        "name": "drawn",
        "model": "tiny",
        "pairing": {"mode": "explicit", "path": "pairs.csv"},
        "method": {"name": "styleid", "steps": 2},
        "image": {"size": 32},
        "engine": {"name": "local", "threads": 1, "batch": 3},
        "features": {"source": "held"},
        "output": {"shard_size": 3, "image": {"format": "png"}},
    },
    {"pairs.csv": [dict(zip(("content", "style"), _png(row), strict=True)) for row in _LISTED]},
    _copies(["c0.png", "c1.png", "c2.png", "s0.png", "s1.png", "s2.png"]),
    tuple(Asked(*_png(row), "", "", is_good=True) for row in _LISTED),
)
"""Listed pairs whose second block names styles in another order than the first: no such list could be rendered once."""
