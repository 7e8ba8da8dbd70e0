"""Waits out Zoho CRM's transient record locks, and explains the refusals that waiting cannot fix."""

__version__ = "0.1.0"
