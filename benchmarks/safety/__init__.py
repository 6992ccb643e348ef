"""What the safety gate keeps out of the generator's texts."""
