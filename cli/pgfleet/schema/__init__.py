"""The schema: where its SQL is, what is applied, and how it gets into a database."""
