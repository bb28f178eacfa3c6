"""What run.json holds of an export: an output like any other, with the outputs and the choice that it was made by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from stylebatch.errors import ManifestError
from stylebatch.export.export_options import ExportOptions
from stylebatch.export.exported_shards import Exported
from stylebatch.export.rendered import Rendered
from stylebatch.folder import Folder
from stylebatch.masking import masked_values
from stylebatch.spec import canonical_json
from stylebatch.store.output_record import FORMAT, VERSION, ExportRecord, Origin, RunRecord
from stylebatch.store.sinks.annotations import form_of
from stylebatch.store.versions import versions


def names_of(given: Sequence[Rendered]) -> list[str]:
    """Of the outputs: the manifest's, the folder's where these agree, with a number where those agree too."""
    for names in (
        [one.run.name for one in given],
        [PurePosixPath(place_of(one.folder)).name for one in given],
    ):
        if len(set(names)) == len(names):
            return names
    return [f"{one.run.name} {number}" for number, one in enumerate(given, 1)]


def record_of(exported: Exported, output: Folder, options: ExportOptions) -> RunRecord:
    """What run.json holds."""
    first, selection = exported.given[0].run, exported.selection
    taken: dict[str, Any] = {
        "where": options.where,
        "drop": list(options.drop),
        "originals": options.originals,
        "balance": options.balance,
        "seed": options.seed,
        "splits": list(options.splits),
        "annotations": options.annotations,
    }
    identity = masked_values(_identity_of(exported, taken))
    record = {
        "format": FORMAT,
        "version": VERSION,
        "name": " + ".join(exported.names),
        "digest": digest_of(identity),
        "identity": identity,
        "axes": first.axes,
        "plan": {
            "num_samples": len(selection),
            "num_shards": exported.num_shards,
            **_size(exported),
        },
        "spec": first.spec | {"output": {"path": str(output), **identity["output"]}},
        "model": " + ".join(dict.fromkeys(one.run.model for one in exported.given)),
        "resolved": first.resolved.model_dump(exclude_unset=True, exclude={"forecast_s"})
        | {"engine": "export"},
        "versions": versions(),
        "limit": None,
        "labels": list(exported.labels),
        "lineage": [one.model_dump() for one in _lineage(exported)],
        **_generations(exported, identity),
        "export": taken
        | {
            "shard_size": exported.shard_size,
            "outputs": [
                {"name": name, "path": place_of(one.folder), "digest": one.run.digest}
                for name, one in zip(exported.names, exported.given, strict=True)
            ],
        },
    }
    # through JSON, so that it equals what a later start reads
    return RunRecord.model_validate(json.loads(json.dumps(masked_values(record))))


def _identity_of(exported: Exported, taken: dict[str, Any]) -> dict[str, Any]:
    """What decides about going on with an export; `taken`: the options that choose samples."""
    outputs = hashlib.sha256("\n".join(one.digest for one in exported.given).encode())
    usual = ExportRecord.model_fields
    return {
        "export": {
            "outputs": outputs.hexdigest(),
            "samples": exported.selection.digest,
            "labels": list(exported.labels),
            **{name: value for name, value in taken.items() if value != usual[name].default},
            **({"names": list(exported.names)} if len(exported.given) > 1 else {}),
        },
        "model_fingerprint": exported.given[0].run.identity.get("model_fingerprint", ""),
        **_annotations(exported, taken["annotations"]),
        "output": {
            "format": exported.format,
            "shard_size": exported.shard_size,
            **({"inputs": "reference"} if exported.shares_inputs else {}),
        },
    }


def _generations(exported: Exported, identity: dict[str, Any]) -> dict[str, Any]:
    """How many shards each split has, where there are others than `train`."""
    splits = [{"name": one.split, "num_shards": one.num_shards} for one in exported.stretches]
    if [one["name"] for one in splits] == ["train"]:
        return {}
    return {
        "generations": [
            {
                "first_shard": 0,
                "num_shards": exported.num_shards,
                "digest": digest_of(identity),
                "splits": splits,
            }
        ]
    }


def digest_of(identity: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def place_of(folder: Folder) -> str:
    """Where a folder is, whatever the working directory."""
    return str(folder.local.resolve()) if folder.local is not None else str(folder).rstrip("/")


def _annotations(exported: Exported, asked: str) -> dict[str, Any]:
    """The form of annotations and the classes of objects, where samples have some. Raises ManifestError where none can be written.

    `asked`: the form that an option names, else it stays what it was.
    """
    if "objects" not in exported.schema.names:
        if asked:
            raise ManifestError(
                f"--annotations: found {asked}, and no sample of {exported.given[0].folder} has `objects`; accepted: without"
            )
        return {}
    if asked and exported.format != "files":
        raise ManifestError(
            f"--annotations: found {asked} with the format {exported.format}, which keeps objects in its records; accepted: with files"
        )
    first = exported.given[0].run
    return {
        "annotations": asked or form_of(first) or "coco",
        "classes": list(exported.labels),
    }


def _size(exported: Exported) -> dict[str, Any]:
    """Width and height, and sizes where samples have several, if they are those of all outputs."""
    found = [
        {name: (one.run.plan.model_extra or {}).get(name) for name in ("width", "height", "sizes")}
        for one in exported.given
    ]
    if any(size != found[0] for size in found):
        return {}
    return {name: value for name, value in found[0].items() if value is not None}


def _lineage(exported: Exported) -> Iterator[Origin]:
    """Of a single output its own; of several, each with the name of its output and the licence that its maker declared."""
    for name, one in zip(exported.names, exported.given, strict=True):
        if len(exported.given) == 1:
            yield from origins_of(one)
            continue
        yield Origin(
            what=f"Dataset {name}",
            origin=PurePosixPath(place_of(one.folder)).name,
            licences=one.run.spec.get("license") or "not recorded",
        )
        for origin in origins_of(one):
            yield origin.model_copy(update={"what": f"{origin.what} of {name}"})


def origins_of(one: Rendered) -> list[Origin]:
    """Where the inputs of an output came from; of one that does not record it, what its manifest says."""
    if one.run.lineage:
        return one.run.lineage
    found = []
    for axis in one.run.axes:
        section = one.run.spec.get("styles" if axis == "style" else "contents")
        if isinstance(section, dict):
            origin = PurePosixPath(str(section.get("path", ""))).name
            licence = section.get("license") or "not recorded"
            found.append(Origin(what=f"{axis.capitalize()}s", origin=origin, licences=licence))
    return found
