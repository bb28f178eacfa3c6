"""Measures what the project claims: ratios of things timed side by side in one process."""
