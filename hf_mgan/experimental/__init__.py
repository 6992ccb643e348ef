"""What works and has measured as no better than the default; each module gives the figure, and may go."""
