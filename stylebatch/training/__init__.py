"""Training of the embedded model: data, autoencoder, UNet, export, evaluation."""
