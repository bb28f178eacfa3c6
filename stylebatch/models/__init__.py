"""Networks behind one `Denoiser`; the only package that imports diffusers, transformers, accelerate."""
