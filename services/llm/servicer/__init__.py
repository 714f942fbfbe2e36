"""llm's services over gRPC: each decodes, calls, encodes."""
