"""How sources are kept."""
