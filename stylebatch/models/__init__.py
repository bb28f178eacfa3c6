"""Checkpoints and their networks behind one `Denoiser`; a folder per family. Most imports of diffusers and transformers are here."""
