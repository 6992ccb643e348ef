"""What each part of the demo's recipe is worth."""
