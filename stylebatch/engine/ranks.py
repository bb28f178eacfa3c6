"""The accelerate engine: the ranks of `accelerate launch` or torchrun share the shards, without Ray.

Rank 0 plans, takes the run lock, hands every rank its plan and shards, and reports; the others render the
shards that it hands out until it says that the run is over. A rank that dies ends the launch; the same command resumes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from stylebatch.engine.accounts import Executed, here
from stylebatch.engine.local_engine import LocalEngine
from stylebatch.errors import LeaderFailedError, StylebatchError
from stylebatch.folder import Folder
from stylebatch.planning.plan import Plan
from stylebatch.progress import Event

PATIENCE = timedelta(days=30)
"""How long a rank waits for the slowest one."""


class RankLostError(StylebatchError):
    """Another rank died; nobody can go on without it."""


@dataclass(frozen=True)
class _Failed:
    """Sent to the other ranks when the first one cannot go on."""

    exit_code: int


def by_accelerate() -> bool:
    """Whether `accelerate launch` started this process: it always sets the variable of mixed precision."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and "ACCELERATE_DYNAMO_BACKEND" in os.environ


def _meant_several() -> bool:
    """Whether `accelerate launch` was asked for several processes but started one.

    Without GPUs it sets a meeting point for them, and then runs the script once.
    """
    return by_accelerate() and "MASTER_ADDR" in os.environ


class RanksEngine(LocalEngine):
    """As the local engine, for one stretch of the shards of several ranks."""

    name = "accelerate"

    def __enter__(self) -> RanksEngine:
        self.state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
        self.leads = self.state.is_main_process
        ranks, asked = self.state.num_processes, self.spec.workers
        self._others_listen = ranks > 1
        if self.leads and (
            (asked or 1) > ranks or (ranks == 1 and asked is None and _meant_several())
        ):
            self.progress.note(
                f"accelerate started {ranks} {'rank' if ranks == 1 else 'ranks'}, "
                + (f"engine.workers asks for {asked}" if asked else "where several were asked for")
                + "; for several on one machine: torchrun --nproc_per_node N -m stylebatch run MANIFEST"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        others_know = isinstance(error, LeaderFailedError)
        if self.leads and self._others_listen and isinstance(error, StylebatchError):
            with suppress(RankLostError):
                self._share(_Failed(error.exit_code))
                others_know = True
        if kind is None or others_know:  # its threads abort a process that ends without
            self.state.destroy_process_group()

    def follow(self) -> Any:
        """On every rank but the first: render what rank 0 hands out, until it gives the result."""
        if self.leads:
            return None
        while isinstance(work := self._share(None), tuple):
            self._render_share(*work)
        if isinstance(work, _Failed):
            raise LeaderFailedError(work.exit_code)
        return work

    def conclude(self, result: Any) -> None:
        if self.state.num_processes > 1:
            self._share(result)

    def render(
        self,
        plan: Plan,
        output: Folder,
        shards: Sequence[int],
        *,
        threads: int,
        executed: Executed | None = None,
    ) -> None:
        if self.state.num_processes > 1:
            self._share((plan, output, list(shards), threads, executed))
        # from here they render; a message now would wait for their barrier for ever
        self._others_listen = False
        self._render_share(plan, output, shards, threads, executed)
        self._others_listen = self.state.num_processes > 1

    def _render_share(
        self,
        plan: Plan,
        output: Folder,
        shards: Sequence[int],
        threads: int,
        executed: Executed | None,
    ) -> None:
        if self.state.num_processes > 1:
            with _together():
                everyone = gather_object([here(self.state.device)])
            for rank, process in enumerate(everyone):
                self.progress.event(Event("joined", "", "", f"rank-{rank}", process))
        mine = stretch(shards, self.state.process_index, self.state.num_processes)
        if mine:
            super().render(plan, output, mine, threads=threads, executed=executed)
        with _together():
            self.state.wait_for_everyone()

    def _announce(self, process: dict[str, Any]) -> None:
        if self.state.num_processes == 1:  # several ranks have told it already
            super()._announce(process)

    def _share(self, work: Any) -> Any:
        """What rank 0 gives, on every rank."""
        parcel = [work]
        with _together():
            broadcast_object_list(parcel, from_process=0)
        return parcel[0]


def stretch(shards: Sequence[int], rank: int, ranks: int) -> Sequence[int]:
    """The rank's share: neighbours, which have contents and styles in common; as many as any other rank's, or one less or more.

    A resume shares out anew what is left, so that it too is spread evenly.
    """
    return shards[rank * len(shards) // ranks : (rank + 1) * len(shards) // ranks]


@contextmanager
def _together() -> Iterator[None]:
    """What all ranks do at once. Raises RankLostError when one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(
            f"another rank ended, so this one does ({str(error).splitlines()[0]}).\n"
            "Next: see what that rank said, and run the same command again; committed shards are kept."
        ) from error
