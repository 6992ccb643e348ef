"""Pictures of the concept pages, drawn from formulas and from committed results."""
