"""context: search over documents and memories, summaries with their sources, and prompts.

Its index is derived from what ingest and memory keep, and can be made anew at any time.
"""
