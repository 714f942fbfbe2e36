"""Clients in other languages, as their users have them."""
