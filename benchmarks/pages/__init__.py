"""The pages of the documentation that are written from the committed results."""
