"""What can be done with documents, uploads and sources."""
