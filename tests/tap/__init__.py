"""The UNet with taps on it, and after they are gone."""
