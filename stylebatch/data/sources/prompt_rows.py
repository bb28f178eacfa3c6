"""Tables of prompts: a row asks for one sample, and may name an image, a mask and a reference by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stylebatch.data.image_section import SourceOptions
from stylebatch.data.sources.further import Kinds
from stylebatch.data.sources.source import NOWHERE, USUAL, Item, Ref
from stylebatch.data.sources.table import TableRows
from stylebatch.data.tables.row_batches import Row
from stylebatch.data.tables.table_columns import Columns
from stylebatch.masking import masked
from stylebatch.paths import plain_path

TEXT_COLUMNS = ("prompt", "negative_prompt", "seed", "label", "caption", "id")
IMAGE_COLUMNS = ("image", "mask", "reference")
SET_COLUMNS = ("style", "reference", "reference_prompt")


class PromptRows(TableRows):
    """Rows with `images`, columns that the method takes, and those of sets where it `uses_sets`; others are refused.

    An item's `extra` holds the texts of all columns, those of images as ids.
    """

    def __init__(
        self, uri: str, images: Sequence[str], *, uses_sets: bool, options: SourceOptions = USUAL
    ) -> None:
        accepted = (*TEXT_COLUMNS, *images, *(SET_COLUMNS if uses_sets else ()))
        elsewhere = {*IMAGE_COLUMNS, *SET_COLUMNS}.difference(accepted)
        columns = Columns(accepted[:1], accepted[1:], tuple(elsewhere), carries=True)
        super().__init__(uri, "prompts", columns, options)

    def items(self) -> Iterator[Item]:
        kinds = Kinds()
        for number, row in self.rows():
            row |= {name: plain_path(row[name]) for name in IMAGE_COLUMNS if row.get(name)}
            image, mask, reference = (self._ref(row, name) for name in IMAGE_COLUMNS)
            texts = row | {name: masked(row[name]) for name in IMAGE_COLUMNS if row.get(name)}
            yield Item(
                row["id"], image or NOWHERE, row["label"], row["caption"],
                mask=mask, reference=reference, extra=texts, number=number,
            )  # fmt: skip
            kinds.add_texts(self.columns.further(row))
        self.types = kinds.types()

    def _ref(self, row: Row, column: str) -> Ref | None:
        path = row.get(column)
        return self.ref(self.beside(path)) if path else None
