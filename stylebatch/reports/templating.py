"""Fills the templates beside this file: pages are HTML, cards are Markdown. What is filled in is text, never markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def filled(
    template: str,
    values: Mapping[str, object],
    *,
    plain: Callable[[str], str],
    filters: Mapping[str, Callable[[str], str]] | None = None,
) -> str:
    """The template with `values`; `plain` makes markup of each text that no filter did.

    What `plain` and `filters` give stands as it is. Raises UndefinedError for a value that is not there.
    """

    def finalized(value: object) -> object:
        # `type`: Markup derives from str, and must not be escaped twice
        return Markup(plain(value)) if type(value) is str else value

    pages = Environment(
        loader=PackageLoader("stylebatch.reports"),
        autoescape=True,
        finalize=finalized,
        # a misspelt name in a template would else be an empty text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {name: _marking(change) for name, change in (filters or {}).items()}
    return pages.get_template(template).render(values)


def _marking(change: Callable[[str], str]) -> Callable[[str], Markup]:
    return lambda text: Markup(change(text))


def template_bytes(name: str) -> bytes:
    """A file beside this one's templates as it is, such as a style sheet."""
    loader = PackageLoader("stylebatch.reports")
    source, _, _ = loader.get_source(Environment(), name)
    return source.encode()
