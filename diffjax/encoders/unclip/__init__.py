"""The networks of DALL-E 2 of others, in the layout of Karlo."""
