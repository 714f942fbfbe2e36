"""ingest's messages on the wire."""
