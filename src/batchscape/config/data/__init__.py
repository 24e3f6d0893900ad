"""Section `data`: which examples, and how they are split."""
