"""What works and has measured as no better than the default. Each module gives the number; any of them may go."""
