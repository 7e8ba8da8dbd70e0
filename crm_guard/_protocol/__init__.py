"""What CRM's answers mean, and what follows: pure, without I/O, clock or randomness."""
