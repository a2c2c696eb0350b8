"""The web page: which requests are allowed, how pictures are made, and how the page is served."""
