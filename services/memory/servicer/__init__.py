"""Memory's services over gRPC."""
