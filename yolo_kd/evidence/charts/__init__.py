"""Charts as inline SVG: numbers in, Markup out, coordinates that can be worked out by hand."""
