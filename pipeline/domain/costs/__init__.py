"""What things cost: prices, bills, and the journal's words."""
