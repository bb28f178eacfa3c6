"""Runs within a test process share models."""

from tests.support.shared_models import runs_share_models

__all__ = ["runs_share_models"]
