"""Tokens to keys and values on a live UNet. Needs torch and nothing else of this package but the errors."""
