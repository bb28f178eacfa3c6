"""Inputs and the plan: sources, images, pairs, blocks and shards. Imports no torch."""
