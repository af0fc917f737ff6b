"""Identities: what was learned from a person's photos, kept apart from the models that made it."""
