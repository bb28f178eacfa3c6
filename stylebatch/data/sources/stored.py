"""Folders of images in a store, such as s3://bucket/photos, listed as if the same files lay in a folder of this machine."""

from __future__ import annotations

from stylebatch.data.places import INPUT
from stylebatch.data.sources.image_folder import ImageFolder
from stylebatch.folder import Folder
from stylebatch.paths import is_address


class StoredFolder(ImageFolder):
    """The images under the address, in the order of a folder on disk. One listing tells of all of them."""

    accepted = "an image folder in a store (s3://BUCKET/FOLDER)"

    @classmethod
    def recognises(cls, uri: str) -> bool:
        return is_address(uri) and Folder.at(uri, INPUT).exists
