"""The forms in which an output may be written. A new one is a file here, a row of `SINKS`, and its name in `OutputFormat`."""

from __future__ import annotations

from stylebatch.spec.output import OutputFormat
from stylebatch.store.sinks.files import FilesShard
from stylebatch.store.sinks.parquet import ParquetShard
from stylebatch.store.sinks.sink import Sink
from stylebatch.store.sinks.webdataset import WebDatasetShard

__all__ = ["SINKS", "FilesShard", "ParquetShard", "Sink", "WebDatasetShard", "sink_of"]

SINKS: dict[OutputFormat, type[Sink]] = {
    "webdataset": WebDatasetShard,
    "parquet": ParquetShard,
    "files": FilesShard,
}


def sink_of(format: OutputFormat) -> type[Sink]:
    """The sink of an output's format."""
    return SINKS[format]
