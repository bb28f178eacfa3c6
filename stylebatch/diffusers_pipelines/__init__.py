"""Methods as pipelines of diffusers, for scripts and notebooks; manifests run the same functions (docs/diffusers.md)."""
