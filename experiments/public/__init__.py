"""All studies on whatever public files lie in a folder."""
