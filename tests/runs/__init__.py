"""Tests that render with small models, in process or in one of their own."""
