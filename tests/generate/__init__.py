"""The verb ``generate``, from its words to the picture on disk."""
