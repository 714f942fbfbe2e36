"""A judged set of documents and questions, on which retrieval and citations are measured."""
