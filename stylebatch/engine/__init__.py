"""Runs a plan: one worker holds the only shard loop, engines call it."""
