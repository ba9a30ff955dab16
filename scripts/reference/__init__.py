"""The generated reference pages: from database comments, commands and settings."""
