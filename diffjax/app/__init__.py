"""The web page: what its visitors may ask for, how it is made, and how it is served."""
