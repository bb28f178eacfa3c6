"""What is at a place that was given as an output and is none, for people, with what to type instead."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from shlex import quote

from stylebatch.data.places import entries_of, near
from stylebatch.data.sources.outputs import output_around
from stylebatch.errors import ManifestError, StorageError
from stylebatch.folder import Folder
from stylebatch.manifest import YAML_SUFFIXES, load_spec
from stylebatch.paths import is_address
from stylebatch.store.lock_owner import activity
from stylebatch.survey.beneath import MOST_NAMED, entries_within, named, outputs_beneath
from stylebatch.survey.inspection import inspect
from stylebatch.words import counted

ACCEPTED = "accepted: the output of a run"
BEGINS = "a run that has just begun reads and plans its inputs before it writes anything: look again in a while"


def is_awaited(place: str) -> bool:
    """Whether nothing stands there as yet, so that a run may be about to begin."""
    if is_address(place):
        return not entries_of(place)
    return not os.path.lexists(place) or (os.path.isdir(place) and not os.listdir(place))


def found_instead(place: str, words: Sequence[str]) -> str:
    """What stands at `place`, which has no run.json, and what to type in place of `words`, the verb and its arguments.

    Raises OSError, StorageError among it, where it cannot be looked at.
    """
    lock = activity(Folder.at(place), None)
    if lock is not None:
        return f"{place}: {lock.text}"
    if is_awaited(place):
        meant = near(place)
        hint = f"; did you mean {meant}?" if meant else ""
        what = "an empty folder" if os.path.isdir(place) else "nothing there"
        return f"{place}: found {what}{hint}; {ACCEPTED}; {BEGINS}. Next: `stylebatch run MANIFEST` makes one"
    if is_address(place):
        step = f"`stylebatch inspect {quote(place)}` says what they are"
        return f"{place}: found files, and no run.json; {ACCEPTED}. Next: {step}"
    if os.path.isfile(place) and place.lower().endswith(YAML_SUFFIXES):
        with suppress(ManifestError):
            output = load_spec(place).output.path
            again = _retyped(words, place, output)
            return (
                f"{place}: found a manifest, whose output is {output}; {ACCEPTED}. Next: `{again}`"
            )
    around = output_around(place)
    if around is not None:
        around = around if os.path.isabs(place) else os.path.relpath(around)
        again = _retyped(words, place, around)
        return f"{place}: found a part of the output {around}; {ACCEPTED}. Next: `{again}`"
    beneath = list(islice(outputs_beneath(place), MOST_NAMED + 1))
    if beneath:
        again = _retyped(words, place, beneath[0])
        return f"{place}: found a folder in which outputs lie: {named(beneath)}; {ACCEPTED}. Next: `{again}`"
    return f"{place}: found {_kind(place)}; {ACCEPTED}. Next: `stylebatch inspect {quote(place)}` says more"


def _retyped(words: Sequence[str], place: str, meant: str) -> str:
    """The command with what was meant."""
    typed = (meant if str(Path(word).expanduser()) == place else word for word in words)
    return shlex.join(["stylebatch", *typed])


def _kind(place: str) -> str:
    """In the words of `inspect`."""
    try:
        return inspect(place, 0).kind
    except (ManifestError, StorageError):
        if os.path.isfile(place):
            return "a file that is nothing of stylebatch"
        return f"a folder of {counted(len(entries_within(place)), 'entry')} that is nothing of stylebatch"
