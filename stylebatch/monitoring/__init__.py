"""How far a run is, for people, scripts and Prometheus: from its lock and its records alone, in any process that sees the output."""
