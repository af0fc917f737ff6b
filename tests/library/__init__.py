"""Photos, zip files, face files, and the people saved from them."""
