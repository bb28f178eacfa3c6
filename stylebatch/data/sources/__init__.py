"""Sources of inputs: a file per kind. A source lists its items, and is the only way to the bytes of their images."""
