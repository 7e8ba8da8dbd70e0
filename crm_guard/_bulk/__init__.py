"""The threads of a writer of many rows, and how they send: what touches `requests`, the clock and the locks."""
