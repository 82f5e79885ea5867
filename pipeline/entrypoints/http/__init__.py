"""The API: OpenAI's files, batches and models, and what goes beyond them."""
