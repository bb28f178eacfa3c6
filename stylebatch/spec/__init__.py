"""The run specification: typed, frozen, validated before anything heavy is imported.

`RunSpec` is what a manifest says and what `stylebatch.run` takes. Paths of inputs are relative to the
manifest's folder (`load_spec` joins them), the output path to the working directory.
"""

from stylebatch.spec.custom import CustomMethod
from stylebatch.spec.engine import EngineSpec, FeatureSpec
from stylebatch.spec.method import BlockSize, PromptMethod
from stylebatch.spec.methods import BEYOND_THE_PAPER, StyleAlignedOptions, StyleIDOptions
from stylebatch.spec.model import MODEL_IDS, LoraSpec, ModelSpec, describe_model
from stylebatch.spec.output import ImageFormat, ImageSpec, OutputSpec
from stylebatch.spec.plain import (
    Img2ImgOptions,
    InpaintOptions,
    PlainOptions,
    Scheduler,
    Text2ImgOptions,
    WindowOptions,
)
from stylebatch.spec.prompts import CONTENT_NAMES, PromptSource, names
from stylebatch.spec.run import METHOD_OPTIONS, RunSpec, canonical_json, join_inputs, json_schema
from stylebatch.spec.section import Section
from stylebatch.spec.sources import ContentSource, Pairing, Sampling, Source

__all__ = [
    "BEYOND_THE_PAPER",
    "BlockSize",
    "CONTENT_NAMES",
    "ContentSource",
    "CustomMethod",
    "EngineSpec",
    "FeatureSpec",
    "ImageFormat",
    "ImageSpec",
    "Img2ImgOptions",
    "InpaintOptions",
    "LoraSpec",
    "METHOD_OPTIONS",
    "MODEL_IDS",
    "ModelSpec",
    "OutputSpec",
    "Pairing",
    "PlainOptions",
    "PromptMethod",
    "PromptSource",
    "RunSpec",
    "Sampling",
    "Scheduler",
    "Section",
    "Source",
    "StyleAlignedOptions",
    "StyleIDOptions",
    "Text2ImgOptions",
    "WindowOptions",
    "canonical_json",
    "describe_model",
    "join_inputs",
    "json_schema",
    "names",
]
