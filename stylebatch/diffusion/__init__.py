"""Diffusion mathematics: tensors in, tensors out. This package imports torch alone.

Dimension letters used throughout: B batch (C contents, S styles, P pairs), c latent channels,
h w latent cells, L tokens (h * w at a site's resolution), H attention heads, d head dimension.
"""
