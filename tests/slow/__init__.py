"""Tests of more than about a minute: make test-slow."""
