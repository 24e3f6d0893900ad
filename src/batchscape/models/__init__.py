"""Networks, by name or import path."""
