"""Sources that are one or many container files: tars, Parquet. Which files are meant, and of which split."""

from __future__ import annotations

import os
from typing import ClassVar

from stylebatch.data.places import is_file, is_folder
from stylebatch.data.sources.holdings import files_below, holds, no_split, one_of, split_of
from stylebatch.data.sources.outputs import classes_of, is_record, lacking, output_above, shards_of
from stylebatch.data.sources.patterns import Found, find, is_pattern
from stylebatch.data.sources.source import Source
from stylebatch.words import counted


class ContainerFiles(Source):
    """Files of `suffix`: one, those of a pattern, those in a folder and one level below, or the shards of an output of ours."""

    suffix: ClassVar[str]

    @classmethod
    def recognises(cls, uri: str) -> bool:
        if is_pattern(uri):
            return uri.lower().endswith(cls.suffix)
        if uri.lower().endswith(cls.suffix) and is_file(uri):
            return True
        if not is_folder(uri):
            return False
        # An output goes first, since of its shards only committed ones count.
        output = output_above(uri)
        if output is not None:
            return bool(shards_of(output, cls.suffix)[0])
        return holds(uri, cls.suffix) and not is_record(uri)

    def files(self) -> Found:
        """The files of the split that the options name. Raises ManifestError where there are several and none is named."""
        found = self._all_files()
        splits, wanted = self._splits_of(found), self.options.split
        if wanted is not None and wanted.lower() not in map(str.lower, splits):
            raise self.fault(
                no_split(wanted, ", ".join(splits) or "none, since no file name begins with one"),
                "split",
            )
        if wanted is None:
            if len(splits) > 1:
                raise self.fault(one_of(splits), "split")
            return found
        kept = [f for f in found.files if self._split_of(found, f).lower() == wanted.lower()]
        return Found(found.root, tuple(kept))

    def _begin_classes(self) -> None:
        """Forget those of an earlier listing. An output of ours records its own."""
        self.class_lists = []
        output = None if is_pattern(self.uri) else output_above(self.uri)
        if output is not None and self.options.label is None:
            self.learn_classes(output, enumerate(classes_of(output)))

    def splits(self) -> list[str]:
        """Those of the files. Raises ManifestError for files beside them, which would be in no split."""
        found = self._all_files()
        splits = self._splits_of(found)
        lost = [file for file in found.files if not self._split_of(found, file)]
        if splits and lost:
            raise self.fault(
                f"found {counted(len(lost), 'file')} beside those of the splits {', '.join(splits)}, such as {found.name(lost[0])}; "
                "accepted: each file of a split"
            )
        return splits

    @property
    def names_splits(self) -> bool:
        return self._output is not None

    def _splits_of(self, found: Found) -> list[str]:
        names = (self._split_of(found, file) for file in found.files)
        return list(dict.fromkeys(name for name in names if name))

    def _split_of(self, found: Found, file: str) -> str:
        """The split that a file's name tells; of an output it may have any name."""
        name = found.name(file)
        return name.rpartition("-")[0] if self._output is not None else split_of(name)

    def _all_files(self) -> Found:
        if is_pattern(self.uri):
            where = self.field if "." in self.field else f"{self.field}.path"
            return find(self.uri, where)
        if is_file(self.uri):
            return Found(self.uri, (self.uri,))
        output = self._output = output_above(self.uri)
        if output is not None:
            shards, self._uncommitted = shards_of(output, self.suffix)
            return Found(os.path.join(output, "data"), tuple(shards))
        found = files_below(self.uri, self.suffix)
        if not found:
            raise self.fault(f"found no {self.suffix} file; accepted: one or more")
        return Found(self.uri, tuple(found))

    _output: str | None = None
    _uncommitted = 0
    """Shards of an output that are not committed, and not read."""

    def notes(self) -> list[str]:
        """Also what an output lacks that is not finished."""
        notes, told = super().notes(), lacking(self._output) if self._output is not None else ""
        if not told and self._uncommitted:
            told = f"{counted(self._uncommitted, 'shard')} of this output passed over, since not committed"
        return [*notes, f"{self.field}: {told}"] if told else notes

    def prefix(self, found: Found, file: str) -> str:
        """What ids of a file's images begin with: its name among several, nothing for the one that `path` names."""
        return "" if file == found.root else f"{found.name(file)}/"
