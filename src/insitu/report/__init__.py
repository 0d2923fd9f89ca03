"""What a run learned, told to people: the result as data, the lines on the console, the figures and the page."""
