"""Training and fine-tuning of UNets and autoencoders in pipeline folders, on accelerate."""
