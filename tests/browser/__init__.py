"""Real front-ends in a real browser."""
