"""The figures of the report: one function per figure, inline SVG, coloured by the page's classes."""
