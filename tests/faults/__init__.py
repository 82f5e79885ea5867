"""Real processes on real servers, killed on a seeded schedule, and the books checked afterwards."""
