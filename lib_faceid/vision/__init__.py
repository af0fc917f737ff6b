"""CLIP features of photos: which encoder a file is, the encoder in use, and the pixels it is given."""
