"""The story: from what a person gives to what the UNet receives. Knows no host and no widget."""
