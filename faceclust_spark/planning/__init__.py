"""What a run of a gallery will take, from a sample of it: counts, bytes, memory, seconds, settings."""
