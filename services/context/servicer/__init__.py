"""Context's services over gRPC: they decode, call and encode."""
