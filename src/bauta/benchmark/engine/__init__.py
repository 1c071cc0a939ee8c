"""What all tables share: result cards, their schemas, and recipes as files."""
