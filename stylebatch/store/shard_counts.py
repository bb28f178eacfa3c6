"""What commit markers say of numbers alone: read fast, for those who add up the markers of all shards."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stylebatch.errors import UnansweredError
from stylebatch.folder import Folder
from stylebatch.store.names import marker
from stylebatch.store.stored_json import MOST_BYTES

MOST_SAMPLES = 10**12
MOST_IN_A_SHARD = 10**7
Count = Annotated[int, Field(ge=0, le=MOST_SAMPLES)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CountInShard = Annotated[int, Field(ge=0, le=MOST_IN_A_SHARD)]


class ShardCounts(BaseModel):
    """The part of a marker that reports add up; other fields are passed over.

    `failures`: samples that failed, by their code; `rejections`: those that were rejected, by the rule. Markers of earlier versions
    have neither.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    plan_digest: str
    num_samples: int = Field(ge=1, le=MOST_IN_A_SHARD)
    num_success: CountInShard
    num_failed: CountInShard
    num_rejected: CountInShard = 0
    failures: dict[str, CountInShard] = {}
    rejections: dict[str, CountInShard] = {}
    bytes: Count
    inputs_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    inputs_bytes: Count = 0
    rejected_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    rejected_bytes: Count = 0
    seconds: Amount = 0.0
    evaluations: Count = 0
    revoked: bool = False

    @model_validator(mode="after")
    def _adds_up(self) -> ShardCounts:
        if self.num_success + self.num_failed + self.num_rejected != self.num_samples:
            raise ValueError(
                f"num_samples: found {self.num_samples}, where {self.num_success} succeeded, {self.num_failed} failed and "
                f"{self.num_rejected} were rejected"
            )
        return self


def read_counts(output: Folder, shard: str) -> ShardCounts | None:
    """What a shard's marker counts; None where it is no whole marker, or gone."""
    try:
        return ShardCounts.model_validate_json(output.read(marker(shard), MOST_BYTES))
    except UnansweredError:
        raise
    except (OSError, ValidationError):
        return None
