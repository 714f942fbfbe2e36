"""Documents, passages, uploads and sources: rules without input or output."""
