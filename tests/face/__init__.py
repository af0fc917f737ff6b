"""Faces in photos: finding, choosing and cropping them, and the model packs that do it."""
