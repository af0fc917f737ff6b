"""The live cases' own machinery, against a stand-in that answers as a WebUI does."""
