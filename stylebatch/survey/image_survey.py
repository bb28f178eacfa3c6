"""What a source of images holds, by the same listing that plans and runs read it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stylebatch.data.image_section import ContentSpec
from stylebatch.data.sources.kinds import KINDS, kind_of, name_of, open_source
from stylebatch.data.sources.listing import Listing, list_contents
from stylebatch.data.sources.source import Item, Source
from stylebatch.data.sources.splitting import NO_SPLITS, SplitBy
from stylebatch.errors import ManifestError
from stylebatch.spec.splits import USUAL, usual_name
from stylebatch.survey.picture_look import PictureLook, look_at

FIELD = "contents"
"""Sources are opened as contents, whose listing tells most."""


@dataclass(frozen=True)
class ImageSurvey:
    """`kind`: a row of `KINDS`; `types`: of the further columns; `problem`: what is damaged, "" for nothing."""

    kind: str
    listing: Listing
    types: Mapping[str, str]
    look: PictureLook
    problem: str = ""

    @property
    def classes(self) -> Counter[str]:
        """Images by label, "" for those without."""
        return Counter(item.label for item in self.listing.items)

    @property
    def splits(self) -> Counter[str]:
        return Counter(item.split for item in self.listing.items if item.split)

    @property
    def objects(self) -> Counter[str]:
        """Annotated objects by class."""
        return Counter(region.label for item in self.listing.items for region in item.regions)

    @property
    def num_captioned(self) -> int:
        return sum(bool(item.caption) for item in self.listing.items)

    def further(self, item: Item) -> Mapping[str, Any]:
        """Every further column of one of its images."""
        source = self.listing.sources.by_field.get(item.ref.source)
        return item.extra if source is None else source.further(item)

    @property
    def notes(self) -> list[str]:
        """What the listing tells, without the name of a manifest's field."""
        return [without_field(note) for note in self.listing.notes]


def survey_images(spec: ContentSpec) -> ImageSurvey:
    """All images that `spec` means, of all splits; what can be read of damaged files.

    Raises ManifestError, as a plan does, for a place that holds none, and StorageError for a store that does not answer.
    """
    problem = ""
    try:
        source, listing = listed(spec)
    except ManifestError as error:
        name = kind_of(spec.path, spec)
        if name is None or "damaged" not in KINDS[name].takes or spec.damaged == "pass_over":
            raise
        problem = without_field(str(error))
        try:
            source, listing = listed(spec.model_copy(update={"damaged": "pass_over"}))
        except ManifestError:
            raise error from None  # it is no damage, or nothing is left
    look = look_at(listing.items, listing.sources)
    return ImageSurvey(name_of(source), listing, source.types, look, problem)


def listed(spec: ContentSpec) -> tuple[Source, Listing]:
    """The source and its images, of all its splits where it has some and `spec` names none."""
    source = open_source(spec.path, FIELD, spec)
    has_splits = spec.split is None and bool(split_names(source))
    listing = list_contents(spec, SplitBy(source=True) if has_splits else NO_SPLITS)
    # the listing opens a source of its own, which has learned the types of columns
    return listing.sources.by_field.get(FIELD, source), listing


def split_names(source: Source) -> list[str]:
    """The splits that a source has; none where its folders seem to be classes, and where some images are in no split."""
    try:
        names = source.splits()
    except ManifestError:
        return []
    if source.names_splits:
        return names
    short = {usual_name(name.rstrip("0123456789")) for name in names}
    return names if short <= USUAL.keys() else []


def without_field(text: str) -> str:
    """`photos: found ...` of `contents.path: photos: found ...`."""
    for beginning in (f"{FIELD}.path: ", f"{FIELD}: "):
        text = text.removeprefix(beginning)
    return text
