"""Many rows: which are sent together, when, and what becomes of each. Pure."""
