"""What `crm_guard.testing` and the pytest plugin do to a process while a simulated CRM stands in for Zoho."""
