"""What is reported, exact over a whole split: sums and counts that add up over batches and devices."""
