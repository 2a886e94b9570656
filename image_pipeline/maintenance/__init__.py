"""What keeps the bucket tidy: plans, and carrying them out without touching what lives."""
