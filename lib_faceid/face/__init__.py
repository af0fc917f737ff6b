"""From a photo to faces: where they are, their aligned crops, and their 512 numbers."""
