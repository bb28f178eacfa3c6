"""Writes evaluations into a folder: evaluation.json, evaluation.md, and pareto.png where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence

from stylebatch.evaluation.evaluate import Evaluation
from stylebatch.evaluation.figure_tables import FORMAT, as_json, markdown
from stylebatch.evaluation.pareto import plot
from stylebatch.folder import Folder
from stylebatch.reports.our_files import require_ours

FILES = ("evaluation.json", "evaluation.md", "pareto.png")
NO_PLOT = "pareto.png needs matplotlib. Next: pip install 'stylebatch[evaluate]'"


def require_free(folder: Folder) -> None:
    """Raise ManifestError where the folder holds files of these names that this program did not write."""
    require_ours(folder, FILES, FORMAT)


def write_evaluations(folder: Folder, evaluations: Sequence[Evaluation]) -> list[str]:
    """Write the files; notes on what could not be. Raises as `require_free`."""
    require_free(folder)
    # first: it says whose the other files are
    folder.write(FILES[0], f"{as_json(evaluations)}\n".encode("utf-8", "backslashreplace"))
    picture, notes = None, []
    try:
        picture = plot(evaluations)
    except ModuleNotFoundError:
        notes.append(NO_PLOT)
    text = markdown(evaluations, has_plot=picture is not None)
    folder.write(FILES[1], text.encode("utf-8", "backslashreplace"))
    if picture is not None:
        folder.write(FILES[2], picture)
    return notes
