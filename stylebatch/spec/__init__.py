"""The run specification: typed, frozen, validated before anything heavy is imported.

`RunSpec` is what a manifest says and what `stylebatch.run` takes; it is composed of sections that stand beside the code they
configure (models, methods, data) and those of the run itself. Paths of inputs are relative to the manifest's folder
(`load_spec` joins them), the output path to the working directory.
"""

from stylebatch.spec.engine import EngineSpec, FeatureSpec
from stylebatch.spec.output import OutputSpec
from stylebatch.spec.pairing import Pairing, Sampling
from stylebatch.spec.run_spec import (
    DEFAULT_METHOD,
    METHOD_OPTIONS,
    RunSpec,
    canonical_json,
    join_inputs,
    json_schema,
)
from stylebatch.spec.splits import SplitSpec

__all__ = [
    "DEFAULT_METHOD",
    "EngineSpec",
    "FeatureSpec",
    "METHOD_OPTIONS",
    "OutputSpec",
    "Pairing",
    "RunSpec",
    "Sampling",
    "SplitSpec",
    "canonical_json",
    "join_inputs",
    "json_schema",
]
