"""ingest: documents in, whatever they are, as passages that can be found and cited.

What a document says is read in a process of its own, with bounds on time and memory.
"""
