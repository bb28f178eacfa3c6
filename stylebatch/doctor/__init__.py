"""`stylebatch doctor`: what a checkpoint is, needs and lacks, and what this machine has."""
