"""How each kind of method renders a block: what it prepares of the inputs of an axis, and the latents of samples."""
