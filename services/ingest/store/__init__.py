"""How documents, their bytes and passages, uploads, sources and the feed are kept."""

from services.ingest.store import documents, feed, heaps, passages, sources, uploads

__all__ = ["documents", "feed", "heaps", "passages", "sources", "uploads"]
