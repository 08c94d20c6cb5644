"""What every part needs of files, and nothing else: it imports no other part."""
