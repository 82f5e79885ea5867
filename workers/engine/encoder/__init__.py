"""Text encoders: embeddings, similarity scores, rerankers and classifiers, batched by length."""
