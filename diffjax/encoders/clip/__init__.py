"""CLIP as a frozen network: its tokenizer, its files, and features of pictures and texts."""
