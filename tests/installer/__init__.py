"""install.py, run by hand in the same process and by a stand-in of the host in one of its own."""
