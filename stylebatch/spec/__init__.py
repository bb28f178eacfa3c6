"""The run specification: typed, frozen, validated before anything heavy is imported.

`RunSpec` is what a manifest says and what `stylebatch.run` takes. Paths of inputs are relative to the
manifest's folder (`load_spec` joins them), the output path to the working directory.
"""

from stylebatch.spec.engine import EngineSpec, FeatureSpec
from stylebatch.spec.methods import StyleAlignedOptions, StyleIDOptions
from stylebatch.spec.model import MODEL_IDS, ModelSpec, describe_model
from stylebatch.spec.output import ImageFormat, ImageSpec, OutputSpec
from stylebatch.spec.run import RunSpec, canonical_json, join_inputs, json_schema
from stylebatch.spec.section import Section
from stylebatch.spec.sources import Pairing, Sampling, Source

__all__ = [
    "EngineSpec",
    "FeatureSpec",
    "ImageFormat",
    "ImageSpec",
    "MODEL_IDS",
    "ModelSpec",
    "OutputSpec",
    "Pairing",
    "RunSpec",
    "Sampling",
    "Section",
    "Source",
    "StyleAlignedOptions",
    "StyleIDOptions",
    "canonical_json",
    "describe_model",
    "join_inputs",
    "json_schema",
]
