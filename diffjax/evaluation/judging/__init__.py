"""People compare systems: pictures of a list of prompts, a page that shows them, and the count."""
