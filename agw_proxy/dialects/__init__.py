"""Wire dialects: pure readers and writers of requests, answers, streams and errors; see ``base``."""
