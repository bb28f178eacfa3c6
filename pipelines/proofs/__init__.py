"""Proofs too long for the suite: runs killed at random, published networks at full size."""
