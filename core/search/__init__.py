"""Full-text search: text as words, documents of the index, queries, and snippets.

PostgreSQL keeps and combines the words. This package prepares them, because PostgreSQL's parser
splits numbers and addresses in its own way, and knows neither Chinese nor words without accents.
"""
