"""The panel in the WebUI: a view of the engine's table of fields, drawn with gradio. It computes nothing itself."""
