"""Pictures of samples that gates reject, kept where no loader looks: `rejected/train-00000.tar`, of each KEY.jpg and KEY.json.

The file is made whatever the format of the output, only where the manifest asks for it, and committed with its shard.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from stylebatch.folder import Folder
from stylebatch.store.output_record import ShardStats
from stylebatch.store.records import Record, as_json
from stylebatch.store.sinks.tar_writer import TarWriter
from stylebatch.store.sinks.whole_files import WholeFile

ASIDE = "rejected"
SUFFIX = ".tar"


def aside_file(name: str) -> str:
    """Where the rejected pictures of a shard are."""
    return f"{ASIDE}/{name}{SUFFIX}"


def aside_name(file: str) -> str:
    """The shard that such a file is of, "" for other files."""
    name = file.removeprefix(f"{ASIDE}/").removesuffix(SUFFIX)
    return name if file == aside_file(name) else ""


def is_aside_there(output: Folder, name: str, stats: ShardStats) -> bool:
    """Whether the file seems to be what was committed, or none was."""
    if not stats.rejected_sha256:
        return True
    facts = output.facts(aside_file(name))
    return facts is not None and facts.is_file and facts.size_bytes == stats.rejected_bytes


class Aside:
    """The file of a shard that is being written."""

    def __init__(self, output: Folder, name: str, schema: pa.Schema) -> None:
        self.file, self.schema = WholeFile(output, aside_file(name)), schema

    def add(self, record: Record) -> None:
        """Append a sample."""
        if not self.file.is_open:
            self._tar = TarWriter(self.file.open())
        files = {**record.files, "json": as_json(record.row, self.schema)}
        self._tar.write(record.row["key"], files)

    def close(self) -> dict[str, Any]:
        """Make the file durable; what the stats tell of it, nothing where no picture was kept."""
        if not self.file.is_open:
            self.file.remove()
            return {}
        self._tar.close()
        sha256, size_bytes = self.file.close()
        return {"rejected_sha256": sha256, "rejected_bytes": size_bytes}
