"""What things cost: prices and the rules by which providers bill."""
