"""The family of Stable Diffusion 1.x, 2.x and XL: a UNet, an autoencoder, CLIP text encoders. No other module reads their configs."""
