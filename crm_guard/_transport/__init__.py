"""What performs a conversation on `requests`."""
