"""What is kept: content rows, what a listing has seen, and the blobs of large items."""
