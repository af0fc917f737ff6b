"""From photos to what an adapter is fed: which face, how much each photo counts, what is said, on the command line."""
