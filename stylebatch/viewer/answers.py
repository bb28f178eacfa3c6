"""What the viewer answers to the requests of its page. Nothing of a request is a path: rows are numbers, all else is a name of a table.

Text goes out as JSON, columns and selections as arrays; the page shows text as text.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stylebatch.errors import ManifestError, StylebatchError
from stylebatch.export.expressions import Expression
from stylebatch.masking import safe_text
from stylebatch.reports.committed import INPUTS, REQUIRED
from stylebatch.reports.gallery import escaped
from stylebatch.reports.page_columns import plain
from stylebatch.reports.page_state import facts, lineage, reasons_told, summary
from stylebatch.reports.templating import filled, template_bytes
from stylebatch.reports.verdicts import REJECTED
from stylebatch.viewer.loaded import Loaded
from stylebatch.viewer.marks import Marks
from stylebatch.viewer.shard_pictures import (
    MEMBERS,
    READ_AHEAD,
    RESULT,
    Picture,
    ShardPictures,
    UnreadableError,
)
from stylebatch.viewer.watched import Watched

PAGE = "viewer.html"
SCRIPTS = ("table.js", "histogram.js", "grid.js", "sample.js", "page.js", "served.js")
STATIC = {"page.css": "text/css", **dict.fromkeys(SCRIPTS, "text/javascript")}
ON_CARDS = (*REQUIRED, *INPUTS, "style", "prompt")
MOST_ROWS, MOST_MARKED = 500, 100_000
KINDS = (RESULT, *MEMBERS)


class Answer(NamedTuple):
    """`kept`: whether the browser may keep it."""

    status: int
    type: str
    data: bytes
    kept: bool = False
    headers: Mapping[str, str] = {}


class Refused(Exception):
    """A request that cannot be answered: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Request:
    """`query`: the last value of each name; `is_wanted`: whether anybody still waits for the answer."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_wanted: Callable[[], bool] = lambda: True


@dataclass
class Answers:
    """Answers requests about one output; `marks`: None where nothing can be marked, for the reason `unmarked`."""

    watched: Watched
    marks: Marks | None
    unmarked: str = ""

    def __post_init__(self) -> None:
        self._of_version: tuple[int, ShardPictures] | None = None
        # pictures of another start may have the same numbers
        self._session = secrets.token_hex(4)
        self._static = {name: template_bytes(name) for name in STATIC}
        self._gets: dict[str, Callable[[Request], Answer]] = {
            "/": self._page,
            "/api/state": self._state,
            "/api/columns": self._columns,
            "/api/rows": self._rows,
            "/api/sample": self._sample,
            "/api/search": self._search,
            "/api/marks": self._marked,
            "/picture": self._picture,
        }

    def get(self, request: Request) -> Answer:
        """Raises Refused."""
        answer = self._gets.get(request.path)
        if answer is not None:
            return answer(request)
        name = request.path.removeprefix("/static/")
        if name in self._static and request.path.startswith("/static/"):
            return Answer(200, f"{STATIC[name]}; charset=utf-8", self._static[name])
        raise Refused(404, "found no such page")

    def post(self, request: Request) -> Answer:
        """Raises Refused."""
        if request.path == "/api/marks":
            return self._mark(request)
        raise Refused(404, "found no such page")

    @property
    def _pictures(self) -> ShardPictures:
        """Of the output as it is now: a repair may move what lies in a shard."""
        found, version = self._of_version, self.watched.version
        if found is None or found[0] != version:
            format = self._loaded.run.output_format
            found = self._of_version = version, ShardPictures(self.watched.output, format)
        return found[1]

    @property
    def _with_pictures(self) -> list[str]:
        """Status of the samples that have pictures."""
        gates = self._loaded.run.spec.get("gates")
        keeps_rejected = isinstance(gates, dict) and gates.get("keep_rejected") is True
        return ["success", *([REJECTED] if keeps_rejected else [])]

    @property
    def _loaded(self) -> Loaded:
        return self.watched.loaded

    def _page(self, request: Request) -> Answer:
        values = {"name": self._loaded.run.name, "scripts": SCRIPTS}
        data = filled(PAGE, values, plain=escaped).encode()
        return Answer(200, "text/html; charset=utf-8", data)

    def _state(self, request: Request) -> Answer:
        self.watched.look()
        loaded, plan = self._loaded, self._loaded.run.plan
        columns = loaded.columns
        now = self.watched.activity
        described = {} if columns is None else columns.described(loaded.names)
        return _json(
            {
                "version": f"{self._session}-{self.watched.version}",
                "name": loaded.run.name,
                "output": str(loaded.output),
                "num_rows": loaded.num_rows,
                "num_planned": plan.num_samples,
                "num_chunks": len(loaded.chunks),
                "is_loading": self.watched.is_loading,
                "live": now is not None and now.is_live,
                "activity": "" if now is None else safe_text(now.text),
                "trouble": self.watched.trouble,
                "problems": [safe_text(text) for text in loaded.problems],
                "reasons": reasons_told(loaded.reasons.sorted()),
                "newest": loaded.newest[::-1],
                "with_pictures": self._with_pictures,
                "summary": list(summary(loaded.run, loaded.counts, loaded.num_shards)),
                "facts": facts(loaded.run),
                "marks": None if self.marks is None else self.marks.where,
                "unmarked": self.unmarked,
                **described,
            }
        )

    def _columns(self, request: Request) -> Answer:
        number, chunks = _number(request, "chunk"), self._loaded.chunks
        if number >= len(chunks):
            raise Refused(404, f"found no chunk {number}; accepted: below {len(chunks)}")
        chunk = chunks[number]
        head = json.dumps({"first": chunk.first, "count": len(chunk.table), "names": chunk.names})
        # arrays of the browser begin at multiples of their own size
        told = head.encode().ljust(-(-len(head.encode()) // 4) * 4)
        data = len(told).to_bytes(4, "little") + told + chunk.body
        return Answer(200, "application/octet-stream", data)

    def _rows(self, request: Request) -> Answer:
        numbers = _numbers(request.query.get("at", ""))
        try:
            rows = self._loaded.rows(numbers)
        except IndexError as error:
            raise Refused(404, str(error)) from None
        shown = [plain({name: row[name] for name in ON_CARDS if name in row}) for row in rows]
        return _json({"rows": dict(zip(map(str, numbers), shown, strict=True))})

    def _sample(self, request: Request) -> Answer:
        (row,) = self._found(request, 0)
        pictures, error = list[str](), ""
        if row["status"] in self._with_pictures:
            try:
                pictures = self._pictures.kinds(self._found(request, READ_AHEAD))
            except UnreadableError as fault:
                error = safe_text(str(fault))
        told = {"columns": plain(row), "pictures": pictures, "error": error}
        return _json(told | {"lineage": lineage(self._loaded.run, row)})

    def _found(self, request: Request, count: int) -> list[dict[str, Any]]:
        try:
            return self._loaded.behind(_number(request, "row"), count)
        except IndexError as error:
            raise Refused(404, str(error)) from None

    def _picture(self, request: Request) -> Answer:
        kind = request.query.get("kind", RESULT)
        if kind not in KINDS:
            raise Refused(404, f"kind: found {kind!r}; accepted: {', '.join(KINDS)}")
        row, side = _number(request, "row"), _number(request, "side", "0")

        def rows() -> list[dict[str, Any]]:
            return self._found(request, READ_AHEAD)

        try:
            found: Picture | None = (
                self._pictures.small(rows, (row, kind), side, request.is_wanted)
                if side
                else self._pictures.whole(rows, kind)
            )
        except UnreadableError as error:
            raise Refused(404, str(error)) from None
        if found is None:
            raise Refused(408, "nobody waits for it")
        return Answer(200, found.type, found.data, kept=True)

    def _search(self, request: Request) -> Answer:
        text, where = request.query.get("text", ""), request.query.get("where", "")
        mask: NDArray[np.bool_]
        if "marked" in request.query:
            keys = [] if self.marks is None else self._keys(self.marks)
            mask = self._loaded.keyed(keys)
        elif where:
            mask = self._fulfilling(where)
        else:
            mask = self._loaded.containing(text)
        bits = np.packbits(mask, bitorder="little").tobytes()
        return Answer(200, "application/octet-stream", bits, headers={"X-Rows": str(len(mask))})

    def _fulfilling(self, where: str) -> NDArray[np.bool_]:
        """Rows that fulfil an expression as `export --where` takes it."""
        expression: Expression | None = None
        found = [np.zeros(0, np.bool_)]
        try:
            for table in self._loaded.tables():
                if expression is None or expression.columns != table.schema.names:
                    expression = Expression(where, table.schema.remove_metadata())
                found.append(expression.of(table)[0])
        except ManifestError as error:
            raise Refused(400, str(error).removeprefix("--where: ")) from None
        return np.concatenate(found)

    def _marked(self, request: Request) -> Answer:
        return _json({"keys": [] if self.marks is None else self._keys(self.marks)})

    def _keys(self, marks: Marks) -> list[str]:
        try:
            return marks.keys()
        except StylebatchError as error:
            raise Refused(409, str(error)) from None

    def _mark(self, request: Request) -> Answer:
        if self.marks is None:
            raise Refused(409, self.unmarked)
        try:
            told = json.loads(request.body)
            numbers, marked = told["rows"], told["marked"]
            if type(marked) is not bool or not all(type(one) is int for one in numbers):
                raise ValueError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refused(400, 'accepted: {"rows": [0, 1], "marked": true}') from None
        if len(numbers) > MOST_MARKED:
            raise Refused(400, f"found {len(numbers)} rows; accepted: up to {MOST_MARKED}")
        try:
            keys = [str(row["key"]) for row in self._loaded.rows(numbers)]
            found = self.marks.change(keys, marked=marked)
        except IndexError as error:
            raise Refused(404, str(error)) from None
        except StylebatchError as error:
            raise Refused(409, str(error)) from None
        return _json({"keys": found})


def _json(value: Any) -> Answer:
    data = json.dumps(value, ensure_ascii=True, allow_nan=False).encode()
    return Answer(200, "application/json", data)


def _number(request: Request, name: str, default: str = "") -> int:
    text = request.query.get(name, default)
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Refused(400, f"{name}: found {text[:40]!r}; accepted: a whole number")
    return int(text)


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) > MOST_ROWS or not all(
        p.isascii() and p.isdigit() and len(p) <= 12 for p in parts
    ):
        raise Refused(400, f"at: accepted: up to {MOST_ROWS} numbers of rows, such as 0,1,2")
    return [int(part) for part in parts]
