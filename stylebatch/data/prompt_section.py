"""Where prompts come from: rows of a file, or a template with lists."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from stylebatch.paths import Place
from stylebatch.section import Section

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1)]
Values = Annotated[dict[Text, Texts], Field(min_length=1)]
CONTENT_NAMES = ("label", "caption")
"""Names that a template may use where each row has a content."""


class PromptSource(Section):
    """Rows with a prompt each. File paths of this section are relative to the manifest, those of rows to their file."""

    path: Place | None = Field(
        None,
        description="CSV, TSV, JSONL or Parquet rows of prompt[, negative_prompt, seed, label, caption, style, image, mask, "
        "reference, reference_prompt, id]",
    )
    template: str | None = Field(
        None,
        min_length=1,
        description="In place of `path`: a prompt with names in braces, expanded over all combinations of `values`; over "
        "`contents` also {label} and {caption} of the image",
    )
    values: dict[
        Text,
        Annotated[
            # A plain union would tell of a wrong value once for each of its forms.
            Annotated[Texts, Tag("list[text]")] | Annotated[Values, Tag("map[text]")],
            Discriminator(lambda given: "map[text]" if isinstance(given, dict) else "list[text]"),
        ],
    ] = Field(
        {},
        description="Per name of the template a list of texts, or lists by key, such as {animal: {cat: [a cat, a kitten]}}",
    )
    label: str | None = Field(
        None,
        description="Name of the list that gives the label: its key, or its text; over `contents` default their labels",
    )
    style: str | None = Field(
        None, description="Name of the list that gives the set a row belongs to (stylealigned)"
    )
    caption: str | None = Field(
        None, description="As `template`, for the caption; default the prompt"
    )
    per_prompt: int = Field(
        1, ge=1, le=1_000_000, description="Samples per row, each with its seed"
    )
    negative_prompt: str | None = Field(None, description="For rows that give none")
    long_prompts: Literal["truncate", "chunk", "refuse"] = Field(
        "truncate",
        description="Prompts beyond the text encoder's tokens (77): their ends are left out, which plan and record tell; they "
        "are encoded in windows of 75, one behind the other; or they are refused",
    )
    image: Place | None = Field(None, description="Image for rows that give none")
    mask: Place | None = Field(
        None, description="Mask (white is made anew) for rows that give none"
    )
    reference: Place | None = Field(
        None,
        description="Image whose style a set takes (stylealigned), for rows that give none",
    )
    reference_prompt: str | None = Field(
        None, description="What `reference` shows, for its inversion"
    )

    carry: tuple[str, ...] | None = Field(
        None,
        description="Further columns of the rows that go along to the records and samples; default all, [] for none",
    )

    @model_validator(mode="after")
    def _rows_or_template(self) -> Self:
        if (self.path is None) == (self.template is None):
            raise ValueError("give either `path` (rows) or `template`")
        if self.template is None:
            given = [
                name
                for name in ("values", "label", "style", "caption")
                if getattr(self, name) not in (None, {})
            ]
            if given:
                raise ValueError(
                    f"{', '.join(f'`{name}`' for name in given)}: for a template; rows of a file have columns"
                )
            return self
        if self.carry is not None:
            raise ValueError("`carry`: for rows of a file; a template has no further columns")
        used = names(self.template, "template")
        if self.caption is not None:
            used |= names(self.caption, "caption")
        lists = {name for name in (self.label, self.style) if name is not None}
        known = set(self.values)
        for what, found in (("template", used - set(CONTENT_NAMES)), ("label, style", lists)):
            if found - known:
                unknown = sorted(found - known)
                raise ValueError(
                    f"{what}: found {', '.join(unknown)}; accepted: the names of `values`"
                    + (f" ({', '.join(self.values)})" if known else ", which is empty")
                    + f". Next: add a list, `values: {{{unknown[0]}: [TEXT, ...]}}`"
                )
        if known - used - lists:
            raise ValueError(
                f"values: {', '.join(sorted(known - used - lists))} is used nowhere; accepted: names in the template"
            )
        return self


def names(template: str, field: str) -> set[str]:
    """Names in braces. Raises ValueError for other contents of braces."""
    found: set[str] = set()
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{field}: {error}; write {{{{ for a brace") from None
    for _, name, form, conversion in parsed:
        # The parser gives no name for text behind the last brace.
        if name is None:
            continue
        # The parser takes {a.b}, {a[0]} and {} as well.
        if not name.isidentifier() or form or conversion:
            raise ValueError(
                f"{field}: found {{{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}; "
                "accepted: plain names in braces, such as {animal}"
            )
        found.add(name)
    return found
