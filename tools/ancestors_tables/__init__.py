"""Tables of DDPM, improved DDPM and ADM on digits; see `__main__`."""
