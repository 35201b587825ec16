"""What the product is measured against: other ways to spend less, and loops a user would write."""
