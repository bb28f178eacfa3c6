"""What tests share: inputs, manifests, checkpoints, oracles."""
