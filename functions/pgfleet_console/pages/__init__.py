"""The pages: one module each, with its handlers and its entry of the navigation."""
