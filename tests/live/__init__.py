"""Cases for a running WebUI, driven over HTTP; ``python -m tests --live ADDRESS`` runs them (command.py)."""
