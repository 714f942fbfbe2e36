"""What memory is about: versions, trees of them, words, rules. None of it knows a database."""
