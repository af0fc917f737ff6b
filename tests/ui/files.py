"""Files as the gradio versions hand them over."""

from __future__ import annotations


class Gradio3File:
    """What gradio 3.41 hands over: a temporary file; ``orig_name`` is the path it was uploaded to."""

    def __init__(self, name, orig_name):
        self.name = str(name)
        self.orig_name = orig_name


class Gradio4File(str):
    """What gradio 4 hands over: a str that has its path once more as ``name``."""

    @property
    def name(self):
        return str(self)
