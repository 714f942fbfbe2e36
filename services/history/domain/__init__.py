"""What history knows without any store: sessions, and what a summary must not lose of them."""
