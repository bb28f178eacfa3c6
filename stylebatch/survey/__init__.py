"""Tells what lies at a place, for `inspect`, and which manifest fits it, for `init`."""
