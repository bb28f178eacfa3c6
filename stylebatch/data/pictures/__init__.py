"""Decodes pictures as people have them: `decoding.py` says the steps."""
