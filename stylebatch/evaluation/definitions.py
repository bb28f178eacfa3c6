"""The table of what `evaluate` measures: name, source, which way is better, what each needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LITE = "efficientnet_lite0"
Role = Literal["style", "structure", "both", "set", "text"]


@dataclass(frozen=True)
class Definition:
    """A measure of a whole output. `needs`: backbones and weights; `inputs`: roles of the pictures that it compares results with
    (`kept`, `look`, as in the table of measures of samples), or `text`; `is_published`: whether its numbers may stand beside a
    paper's."""

    name: str
    title: str
    role: Role
    better: Literal["lower", "higher"]
    needs: tuple[str, ...]
    inputs: tuple[str, ...]
    says: str
    is_published: bool = True


DEFINITIONS = (
    Definition(
        "art_fid", "ArtFID", "both", "lower", ("art_inception", "alexnet", "lpips"), ("kept", "look"),
        "(1 + LPIPS) (1 + FID of ArtFID), Wright and Ommer 2022; 1 or more",
    ),
    Definition(
        "fid_art", "FID of ArtFID", "style", "lower", ("art_inception",), ("look",),
        "Fréchet distance of results and their styles, by an Inception v3 trained on paintings; the FID of StyleID's table",
    ),
    Definition(
        "fid", "FID", "style", "lower", ("inception",), ("look",),
        "Fréchet distance, Heusel et al. 2017, by the Inception v3 of 2015",
    ),
    Definition(
        "kid", "KID", "style", "lower", ("inception",), ("look",),
        "squared maximum mean discrepancy, Bińkowski et al. 2018, over all samples, unbiased",
    ),
    Definition(
        "lpips", "LPIPS", "structure", "lower", ("alexnet", "lpips"), ("kept",),
        "perceptual distance from the content, Zhang et al. 2018, AlexNet, shorter side 512 px as in ArtFID",
    ),
    Definition(
        "cfsd", "CFSD", "structure", "lower", ("vgg19",), ("kept",),
        "content feature structural distance, Chung et al. 2024, relu3_1 of VGG-19, as their code computes it",
    ),
    Definition(
        "histogram_loss", "histogram loss", "style", "lower", (), ("look",),
        "Hellinger distance of RGB-uv histograms, Afifi et al. 2021, from the style; 0 to 1",
    ),
    Definition(
        "set_consistency_dino", "set consistency (DINO)", "set", "higher", ("dino",), (),
        "mean cosine of pictures of one set (of one style, where there are no sets), Hertz et al. 2024",
    ),
    Definition(
        "set_consistency_clip", "set consistency (CLIP)", "set", "higher", ("clip",), (),
        "the same by CLIP's image embedding",
    ),
    Definition(
        "text_alignment_clip", "text alignment (CLIP)", "text", "higher", ("clip",), ("text",),
        "mean cosine of CLIP's embeddings of result and prompt, Hertz et al. 2024",
    ),
    Definition(
        f"art_fid_{LITE}", "ArtFID's arithmetic", "both", "lower", (LITE,), ("kept", "look"),
        "(1 + perceptual distance) (1 + Fréchet distance), both over EfficientNet-Lite0", is_published=False,
    ),
    Definition(
        f"fid_{LITE}", "Fréchet distance", "style", "lower", (LITE,), ("look",),
        "FID's arithmetic over EfficientNet-Lite0", is_published=False,
    ),
    Definition(
        f"kid_{LITE}", "kernel distance", "style", "lower", (LITE,), ("look",),
        "KID's arithmetic over EfficientNet-Lite0", is_published=False,
    ),
    Definition(
        f"perceptual_distance_{LITE}", "perceptual distance", "structure", "lower", (LITE,), ("kept",),
        "LPIPS' arithmetic over EfficientNet-Lite0, every channel of weight 1", is_published=False,
    ),
    Definition(
        f"cfsd_{LITE}", "CFSD's arithmetic", "structure", "lower", (LITE,), ("kept",),
        "CFSD's arithmetic over EfficientNet-Lite0 at stride 8", is_published=False,
    ),
    Definition(
        f"set_consistency_{LITE}", "set consistency", "set", "higher", (LITE,), (),
        "mean cosine of pictures of one set (of one style) by EfficientNet-Lite0", is_published=False,
    ),
)  # fmt: skip
"""In the order in which they are told."""
