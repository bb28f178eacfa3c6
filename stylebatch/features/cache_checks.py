"""Checks the index of a cached style against its key, before a byte of the tar is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter

from stylebatch.features.cache_index import TRAJECTORY, StyleIndex, TensorRow, damaged, key_of
from stylebatch.features.codecs import LATENT_DTYPE, SCALE_SUFFIX
from stylebatch.models.family import NUM_SITES

SIZES = {"float16": 2, "float32": 4, "int8": 1, "int64": 8}
LAYOUT = slice(TensorRow._fields.index("site"), TensorRow._fields.index("offset"))
"""The columns that are equal in the rows of all timesteps: site, tensor, dtype, shape, scales."""
Kind = tuple[str, tuple[int, ...]]


def checked(index: StyleIndex, key: str, where: str) -> StyleIndex:
    """The index, if it is one of style `key`; raises DamagedStyleError naming `where` and the fault."""
    if key_of(index.entry["key"]) != key:
        raise damaged(where, "describes another style")
    if not isinstance(index.entry.get("labels"), dict):
        raise damaged(where, "has no labels")
    fault = (
        _misplaced(index.rows, index.tar_bytes)
        or _wrong_trajectory([row for row in index.rows if row.timestep is None])
        or _wrong_features(index)
    )
    if fault:
        raise damaged(where, fault)
    return index


def _misplaced(rows: Sequence[TensorRow], tar_bytes: int) -> str:
    # computed once per kind: an index has thousands of rows of a few kinds
    lengths: dict[Kind, int] = {}
    end = 0
    for row in sorted(rows, key=attrgetter("offset")):
        kind = (row.dtype, row.shape)
        if kind not in lengths:
            size = SIZES.get(row.dtype, 0) if min(row.shape, default=0) > 0 else 0
            lengths[kind] = math.prod(row.shape) * size
        if row.length != lengths[kind] or row.length <= 0:
            return f"{_name(row)} has {row.length} bytes for {row.dtype} of shape {row.shape}"
        # unaligned views would be copied by torch, or fail on some processors
        if row.offset < end or row.offset % SIZES[row.dtype]:
            return f"{_name(row)} lies at byte {row.offset}, within another or not aligned"
        end = row.offset + row.length
    return "" if 0 < end <= tar_bytes else f"its tensors do not end within {tar_bytes} bytes"


def _wrong_trajectory(rows: Sequence[TensorRow]) -> str:
    found = {row.tensor: row for row in rows}
    if len(rows) != 2 or found.keys() != {"latents", "levels"}:
        return f"found the latents {[row.tensor for row in rows]}; accepted: latents and levels"
    latents, levels = found["latents"], found["levels"]
    if (latents.dtype, len(latents.shape)) != (LATENT_DTYPE, 4):
        return f"latents are {latents.dtype} of shape {latents.shape}"
    if (levels.dtype, levels.shape) != ("int64", latents.shape[:1]):
        return f"levels are {levels.dtype} of shape {levels.shape} for {latents.shape[0]} latents"
    if {row.member for row in rows} != {TRAJECTORY} or any(row.site is not None for row in rows):
        return f"latents are not in {TRAJECTORY}"
    return ""


def _wrong_features(index: StyleIndex) -> str:
    """The fault of the first timestep whose sites, tensors or shapes are wrong; "" if all are right."""
    by_timestep: dict[int, list[TensorRow]] = {}
    for row in index.rows:
        if row.timestep is not None:
            by_timestep.setdefault(row.timestep, []).append(row)
    first: list[tuple[object, ...]] | None = None
    for timestep, rows in by_timestep.items():
        layout: list[tuple[object, ...]] = [tuple(row)[LAYOUT] for row in rows]
        if first is None:
            if fault := _wrong_layout(rows, index):
                return f"timestep {timestep}: {fault}"
            first = layout
        if layout != first:
            return f"the tensors of timestep {timestep} are not those of the others"
        if {row.member for row in rows} != {f"{timestep:04d}.safetensors"}:
            return f"the tensors of timestep {timestep} are not in its member"
    return ""


def _wrong_layout(rows: Sequence[TensorRow], index: StyleIndex) -> str:
    types = index.codec.stored_types
    sites = set(index.entry["key"]["sites"] if index.codec.tensors else ())
    # a site may have several layers (SDXL), whose number the key does not say; at least one each
    layers = {row.site for row in rows if row.site is not None and row.site % NUM_SITES in sites}
    layers |= sites - {layer % NUM_SITES for layer in layers}
    wanted = {(layer, name): dtype for layer in layers for name, dtype in types.items()}
    found = {(row.site, row.tensor): row for row in rows}
    if len(found) != len(rows) or {name: row.dtype for name, row in found.items()} != wanted:
        return f"found the tensors {list(found)}; accepted: {list(wanted)}"
    for (site, name), row in found.items():
        scale = name + SCALE_SUFFIX
        scales = (scale, len(row.shape) - 1) if scale in types else (None, None)
        if (row.scale_tensor, row.scale_axis) != scales:
            return f"{name} of site {site} has the scales {row.scale_tensor}"
        if scale in types and found[site, scale].shape != row.shape[-1:]:
            return f"{scale} of site {site} has the shape {found[site, scale].shape}"
    return ""


def _name(row: TensorRow) -> str:
    return f"tensor {row.tensor} of site {row.site} in {row.member}"
