"""The result of an explanation: relevance maps, figures of them, and files."""
