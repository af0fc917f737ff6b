"""The programs this package works in, one module each; nothing else knows them."""
