"""Whether anything is at a place that people name."""

from __future__ import annotations

import os

from stylebatch.data.places import is_file, is_folder, near
from stylebatch.data.sources.hub_datasets import is_on_hub, local_copy
from stylebatch.data.sources.kinds import is_there
from stylebatch.errors import ManifestError
from stylebatch.paths import is_address, require_place
from stylebatch.survey.image_survey import FIELD


def require_there(place: str) -> None:
    """Raise ManifestError where nothing is, with what has almost its name; for addresses of no store, too.

    A dataset of the hub is fetched.
    """
    try:
        require_place(place)
    except ValueError as error:
        raise ManifestError(f"{place}: {error}") from None
    if is_on_hub(place):
        local_copy(place, FIELD)
        return
    if not place or not is_there(place):
        what = "is a link that leads nowhere"
        if not os.path.islink(place):
            meant = near(place)
            what = "there is no such file or folder" + f"; did you mean {meant}?" * bool(meant)
        raise ManifestError(f"{place!r}: {what}; accepted: one that is there")
    if not is_address(place) and os.path.exists(place) and not (is_file(place) or is_folder(place)):
        raise ManifestError(f"{place!r}: is a pipe or device; accepted: a file or folder")
