"""WebDataset tars: `data/train-00000.tar`, of each sample KEY.jpg, KEY.json, and what else it has."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.spec.output import OutputFormat
from stylebatch.store.records import Record, as_json, json_columns
from stylebatch.store.sinks.columns import Shape, class_label, shared_words, value_feature
from stylebatch.store.sinks.one_file import OneFile, sample_faults
from stylebatch.store.sinks.shared_inputs import Named
from stylebatch.store.sinks.sink import Members, Row
from stylebatch.store.sinks.spans import Span, Spans, read_span
from stylebatch.store.sinks.tar_samples import read_members, sample_spans
from stylebatch.store.sinks.tar_writer import TarWriter
from stylebatch.store.sinks.whole_files import Hashed

LOADING = """\
import glob, webdataset

shards = sorted(glob.glob("PATH_OF_THIS_FOLDER/data/SPLIT-*.tar"))
dataset = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
# a worker without a shard would be an error
loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=min(4, len(shards)))
"""
AVIF = """\
import glob, io, webdataset
from PIL import Image

picture = webdataset.handle_extension("avif", lambda data: Image.open(io.BytesIO(data)))
shards = sorted(glob.glob("PATH_OF_THIS_FOLDER/data/SPLIT-*.tar"))
dataset = webdataset.WebDataset(shards, shardshuffle=False).decode(picture, "pil")
"""
"""webdataset decodes no avif by itself."""


class WebDatasetShard(OneFile):
    """A tar whose members have fixed times, modes and owners, so that one plan gives one tar."""

    format: ClassVar[OutputFormat] = "webdataset"
    suffix = ".tar"
    records_are_in = "`json`"

    def _begin(self, file: Any, record: Record) -> None:
        self._tar = TarWriter(file)

    def _append(self, record: Record) -> None:
        files = {**record.files, "json": as_json(record.row, self.schema)}
        self._tar.write(record.row["key"], files)

    def _end(self) -> None:
        self._tar.close()

    @classmethod
    def _samples(
        cls, output: Folder, name: str, rows: Mapping[str, Row]
    ) -> Iterator[tuple[str, Members]]:
        with output.open(cls.payload(name)) as file:
            yield from read_members(file, rows)

    @classmethod
    def _shared(cls, output: Folder, name: str) -> Iterator[tuple[Named, bytes]]:
        with output.open(cls.inputs_file(name)) as file:
            for _, members in read_members(file, None):
                told = json.loads(members["json"])
                yield (told["kind"], told["id"]), members["jpg"]

    @classmethod
    def spans(cls, output: Folder, name: str) -> Spans:
        inputs: dict[Named, Span] = {}
        # a shard that shares no inputs has no such file
        if output.facts(cls.inputs_file(name)) is not None:
            for members in sample_spans(output, cls.inputs_file(name)).values():
                told = json.loads(read_span(output, members["json"]))
                inputs[str(told["kind"]), str(told["id"])] = members["jpg"]
        return Spans(sample_spans(output, cls.payload(name)), inputs)

    @classmethod
    def _faults(cls, output: Folder, file: str, success: list[Row], sha256: str) -> Iterator[str]:
        found: dict[str, set[str]] = {}
        with output.open(file) as opened:
            hashed = Hashed(opened)
            try:
                with tarfile.open(fileobj=hashed, mode="r|") as archive:  # type: ignore[call-overload]
                    for member in archive:
                        key, _, extension = member.name.partition(".")
                        content = archive.extractfile(member)
                        data = b"" if content is None else content.read()
                        marks = found.setdefault(key, set())
                        # an input may be the same bytes as a result, and stands for none
                        is_input = extension.count(".") > 0
                        marks.add("" if is_input else hashlib.sha256(data).hexdigest())
            except UnansweredError:
                raise
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                yield f"cannot be read to its end: {error}"
                return
            whole = hashed.whole()
        faults = list(sample_faults(success, found))
        yield from faults
        if not faults and whole != sha256:
            yield "its bytes changed since the commit (sha256)"

    @classmethod
    def loading(cls, shape: Shape) -> str:
        code = AVIF if shape.image == "avif" else LOADING
        return code.replace("SPLIT", shape.split)

    @classmethod
    def data_files(cls, split: str) -> str:
        return f"data/{split}-*.tar"

    @classmethod
    def features(cls, shape: Shape) -> list[dict[str, Any]]:
        """In the order in which `datasets` finds the members of a sample."""
        schema: pa.Schema = shape.schema
        names = json_columns(schema)
        record = [value_feature(name, schema.field(name).type, shape.labels) for name in names]
        found: dict[str, dict[str, Any]] = {
            shape.image: {"dtype": "image"},
            "json": {"struct": record},
            **{member: {"dtype": "image"} for member in shape.beside},
        }
        if shape.has_captions:
            found["txt"] = {"dtype": "string"}
        if shape.labels:
            found["cls"] = {"dtype": class_label(shape.labels)}
        return [
            {"name": "__key__", "dtype": "string"},
            {"name": "__url__", "dtype": "string"},
            *({"name": name, **found[name]} for name in sorted(found)),
        ]

    @classmethod
    def members(cls, shape: Shape) -> list[tuple[list[str], str]]:
        found: list[tuple[list[str], str]] = [
            ([shape.image], "the rendered image"),
            (["json"], "ids, label, parameters, measures"),
        ]
        if shape.has_captions:
            found.append((["txt"], "the caption"))
        if shape.labels:
            found.append((["cls"], "the number of the label; -1 where there is none"))
        if shape.beside:
            found.append((list(shape.beside), "the inputs as fitted"))
        return [*found, *shared_words(shape, "`jpg` and, in `json`, `kind` and `id`")]
