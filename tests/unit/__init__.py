"""Tests that load no model and start no process."""
