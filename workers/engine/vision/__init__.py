"""Models that read images: embeddings and labels, of pictures fetched and decoded under limits."""
