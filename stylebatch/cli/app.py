"""Builds the command line from the verbs, which are listed in groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import stylebatch.cli.cache_verbs as cache_verbs
import stylebatch.cli.clean_verb as clean_verb
import stylebatch.cli.compare_verb as compare_verb
import stylebatch.cli.dataset_verbs as dataset_verbs
import stylebatch.cli.demo_verb as demo_verb
import stylebatch.cli.evaluate_verb as evaluate_verb
import stylebatch.cli.export_verbs as export_verbs
import stylebatch.cli.measure_verb as measure_verb
import stylebatch.cli.model_verbs as model_verbs
import stylebatch.cli.output_verbs as output_verbs
import stylebatch.cli.start_verbs as start_verbs
import stylebatch.cli.status_verb as status_verb
from stylebatch.store.versions import version_of

NAME = "stylebatch"
GROUPS: dict[str, tuple[Callable[..., int], ...]] = {
    "Begin": (start_verbs.init, start_verbs.inspect, demo_verb.demo, dataset_verbs.schema),
    "Render": (
        dataset_verbs.run,
        dataset_verbs.plan,
        compare_verb.compare,
        dataset_verbs.precompute,
        dataset_verbs.submit,
    ),
    "Look": (
        status_verb.status,
        output_verbs.report,
        output_verbs.view,
        evaluate_verb.evaluate,
        measure_verb.measure,
    ),
    "Data": (
        output_verbs.verify,
        output_verbs.repair,
        export_verbs.export,
        export_verbs.merge,
        clean_verb.clean,
    ),
    "Models": (model_verbs.doctor, model_verbs.train, model_verbs.conformance),
}
_HELP = {"help_option_names": ["-h", "--help"]}


class Grouped(TyperGroup):
    """Lists its commands by group. typer does so only with rich, whose frames and line breaks hinder scripts."""

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        width = max(map(len, self.commands))
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            group = getattr(command, "rich_help_panel", None)
            rows = groups.setdefault(group or "Commands", [])
            rows.append((name.ljust(width), command.help or ""))
        for heading, rows in groups.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {version_of(NAME)}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="print the version and exit"
        ),
    ] = False,
) -> None: ...


def command() -> TyperGroup:
    """The command line as a group of commands."""
    app = typer.Typer(
        cls=Grouped,
        help="Turn image datasets into stylised training datasets with diffusion models.",
        rich_markup_mode=None,
        context_settings=_HELP,
    )
    app.callback()(_options)
    for group, verbs in GROUPS.items():
        for verb in verbs:
            app.command(rich_help_panel=group)(verb)
    cache_app = typer.Typer(cls=Grouped, rich_markup_mode=None, context_settings=_HELP)
    for cache_verb in (cache_verbs.ls, cache_verbs.verify, cache_verbs.gc):
        cache_app.command()(cache_verb)
    app.add_typer(
        cache_app,
        name="cache",
        help="list, check or shrink a cache of inverted styles",
        rich_help_panel="Style cache",
    )
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found
