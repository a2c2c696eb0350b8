"""Networks that shorten pictures to latents and back, and those that judge them."""
