"""Serves an output to a browser of this machine: its samples, measures, failures and progress."""
