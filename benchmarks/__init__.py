"""Rate-distortion measurements of remac and of its peers. A package of the checkout; it is not installed."""
