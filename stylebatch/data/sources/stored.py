"""Lists the images of a folder in a store, such as s3://bucket/photos, as if the same files lay in a folder of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from stylebatch.data.places import INPUT
from stylebatch.data.sources.image_folder import ImageFolder, passed_over
from stylebatch.data.sources.outputs import COMMIT, is_written, refuse_output
from stylebatch.data.sources.source import Item
from stylebatch.folder import Folder
from stylebatch.paths import is_address


class StoredFolder(ImageFolder):
    """The images under the address, in the order of a folder on disk. One listing tells of all of them."""

    accepted = "an image folder in a store (s3://BUCKET/FOLDER)"
    takes = frozenset(("label_from",))
    reads_beside = False

    def _is_shard(self, folder: str) -> bool:
        return False

    def splits(self) -> list[str]:
        return []  # it reads no split alone

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return is_address(uri) and Folder.at(uri, INPUT).exists

    def items(self) -> Iterator[Item]:
        """Each image. Raises StorageError for a store that does not answer, ManifestError for an output of this program."""
        refuse_output(self.uri, self.field)
        self._begin()
        folder = Folder.at(self.uri, INPUT)
        paths = sorted((PurePosixPath(name) for name, _ in folder.find()), key=_files_first)
        outputs = _outputs(folder, paths)
        self._outputs = [output.as_posix() for output in outputs]
        hidden = dict[PurePosixPath, None]()
        for path in paths:
            above = [parent for parent in path.parents if parent.name.startswith(".")]
            if above:
                # Parents go upwards: the last is the outermost, where a walk would have stopped.
                hidden[above[-1]] = None
                continue
            if not outputs.isdisjoint(path.parents):
                continue
            label = self._label(path.as_posix())
            self._folders |= {label} - {""}
            reason = passed_over(path.name)
            if reason:
                self._pass_over(reason, path.as_posix())
                continue
            self._labels[label] += 1
            name = path.as_posix()
            yield Item(name, self.within(self.uri.rstrip("/"), name), label)
        for path in hidden:
            self._pass_over("hidden folder", path.as_posix())


def _files_first(path: PurePosixPath) -> list[tuple[bool, str]]:
    """Sorts the files of a folder before those of the folders in it, each by name."""
    return [*((True, part) for part in path.parts[:-1]), (False, path.name)]


def _outputs(folder: Folder, paths: Iterable[PurePosixPath]) -> set[PurePosixPath]:
    """Outputs of this program beneath the folder, by a commit or by their run.json."""
    # `refuse_output` has looked at the address itself: a commit of that one has two parts.
    found = {path.parent.parent for path in paths if path.match(COMMIT) and len(path.parts) > 2}
    records = (path.parent for path in paths if path.name == "run.json" and len(path.parts) > 1)
    return found | {above for above in records if is_written(folder.sub(above.as_posix()))}
