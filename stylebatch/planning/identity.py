"""What decides about resuming an output: all that affects pixels or names; and where a plan writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stylebatch.data.arrow_columns import constant_column, number_column, text_column
from stylebatch.data.rows import Cell, ListedCells
from stylebatch.data.rows import facts_of as facts_of_cells
from stylebatch.errors import ManifestError
from stylebatch.methods.method import MethodOptions
from stylebatch.methods.user import users_of
from stylebatch.models.checkpoint import Checkpoint
from stylebatch.planning.axes import Axis, ImageAxis
from stylebatch.planning.run_inputs import Inputs
from stylebatch.quality.classifier_files import facts_of
from stylebatch.spec import RunSpec

FORMAT_VERSION = 3
"""Of records too: 3 has more measures."""
ROWS_AT_ONCE = 1000
COLUMNS_AT_ONCE = 1 << 16


def identity_of(
    spec: RunSpec,
    options: MethodOptions,
    checkpoint: Checkpoint,
    image_size: tuple[int, int],
    inputs: Inputs,
) -> dict[str, Any]:
    """All that is known before blocks are laid out."""
    section, users = spec.method, users_of(spec.method)
    source = {} if users is None else {"source": users.source_digest()}
    method = {"name": section.name, **options.model_dump(mode="json"), **source}
    chunks = spec.prompts is not None and spec.prompts.long_prompts == "chunk"
    return {
        "format_version": FORMAT_VERSION,
        "method": method,
        "model": spec.model.name or spec.model.id or "local",
        "model_fingerprint": checkpoint.fingerprint,
        "dtype": spec.model.dtype,
        "image": {"width": image_size[0], "height": image_size[1], **spec.image.fitting},
        "output": spec.output.facts,
        "seed": spec.seed,
        "pairing": {"mode": "sample", **asdict(spec.pairing.sampling(spec.seed))}
        if spec.pairing.mode == "sample"
        else {"mode": "explicit", "order": spec.pairing.order or "pools"}
        if spec.pairing.mode == "explicit"
        else spec.pairing.mode,
        "inputs": {
            axis.name: {"count": len(axis), "digest": _digest_of_axis(axis)} for axis in inputs.axes
        },
        "listed": "" if inputs.listed is None else _digest_of_cells(inputs.listed),
        **({"long_prompts": "chunk"} if chunks else {}),
        **_without_prompts(checkpoint),
        **({} if spec.model.compile == "off" else {"compile": spec.model.compile}),
        **({} if spec.gates is None else {"gates": spec.gates.facts}),
        **({} if spec.quality is None else {"quality": facts_of(spec.quality)}),
    }


def _without_prompts(checkpoint: Checkpoint) -> dict[str, str]:
    """What identifies a model to styles in a cache, which know no prompt; none where the whole fingerprint does."""
    found = checkpoint.fingerprint_without_prompts
    return {} if found == checkpoint.fingerprint else {"fingerprint_without_prompts": found}


def rows_digest(rows: Iterable[tuple[str, ...]]) -> str:
    """sha256 of rows of texts."""
    digest = hashlib.sha256()
    lines = ("\0".join(row) + "\n" for row in rows)
    while part := "".join(islice(lines, ROWS_AT_ONCE)):
        # file names may hold bytes that are no UTF-8
        digest.update(part.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def columns_digest(columns: Sequence[pa.Array]) -> str:
    """As `rows_digest`, of columns of texts or numbers."""
    digest = hashlib.sha256()
    for start in range(0, len(columns[0]), COLUMNS_AT_ONCE):
        texts = [one.slice(start, COLUMNS_AT_ONCE).cast(pa.large_string()) for one in columns]
        nothing, gap, end = (constant_column(text, len(texts[0])) for text in ("", "\0", "\n"))
        lines = pc.binary_join_element_wise(*texts, gap)
        lines = pc.binary_join_element_wise(lines, nothing, end)
        _, ends, data = lines.buffers()
        digest.update(memoryview(data)[: memoryview(ends).cast("q")[len(lines)]])
    return digest.hexdigest()


def _digest_of_axis(axis: Axis) -> str:
    ids = axis.bare_ids if isinstance(axis, ImageAxis) else None
    if ids is None:
        return rows_digest(axis.facts())
    nothing = constant_column("", len(ids))  # for label and caption
    return columns_digest([ids, nothing, nothing])


def _digest_of_cells(cells: Sequence[Cell]) -> str:
    if not isinstance(cells, ListedCells):
        facts = facts_of_cells(cells)
        return rows_digest((str(row), str(column), *texts) for row, column, *texts in facts)
    places = (number_column(np.frombuffer(one, np.int64)) for one in (cells.rows, cells.columns))
    texts = (
        text_column(one) if one else constant_column("", len(cells))
        for one in (cells.labels, cells.captions)
    )
    return columns_digest([*places, *texts])


def output_path(spec: RunSpec, limit: int | None) -> str:
    """Path or URL that a run writes; a preview of `limit` samples has a directory of its own, beside that of the run."""
    if limit is None:
        return spec.output.path
    if "://" in spec.output.path:
        return f"{spec.output.path.rstrip('/')}-preview-{limit}"
    output = Path(spec.output.path)
    output = output if output.name else output.resolve()  # `.` and `/` have no name
    return str(output.with_name(f"{output.name}-preview-{limit}"))


def previewed(spec: RunSpec, limit: int) -> RunSpec:
    """`spec` with an output of its own for a preview of `limit` samples."""
    if limit < 1:
        raise ManifestError(f"--limit: found {limit}; accepted: 1 or more")
    path = output_path(spec, limit)
    return spec.model_copy(update={"output": spec.output.model_copy(update={"path": path})})


def absolute(path: str | None) -> str | None:
    """A local path made absolute; URLs as they are."""
    return path if path is None or "://" in path else str(Path(path).absolute())


def anchored_spec(spec: RunSpec) -> RunSpec:
    """`spec` with absolute paths of model, cache and the file of a user's method."""
    model, features, method = spec.model, spec.features, spec.method
    changes: dict[str, Any] = {
        "model": model.model_copy(
            update={
                "path": absolute(model.path),
                "config": absolute(model.config),
                "vae": absolute(model.vae),
                "embeddings": tuple(
                    one.model_copy(update={"path": absolute(one.path)}) for one in model.embeddings
                ),
                "lora": tuple(
                    lora.model_copy(update={"path": absolute(lora.path)}) for lora in model.lora
                ),
            }
        ),
        "features": features.model_copy(update={"cache": absolute(features.cache)}),
    }
    if spec.quality is not None and spec.quality.classifier:
        classifier = absolute(spec.quality.classifier)
        changes["quality"] = spec.quality.model_copy(update={"classifier": classifier})
    if ".py:" in (path := getattr(method, "path", "")):
        changes["method"] = method.model_copy(update={"path": absolute(path)})
    return spec.model_copy(update=changes)
