"""What one publish costs, on both sides: our publisher against every known way to send a changed database."""
