"""ingest's services over gRPC."""
