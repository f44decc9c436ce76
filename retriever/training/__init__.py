"""Training only: nothing in here is imported by a search, and torch is needed."""
