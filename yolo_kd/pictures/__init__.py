"""Picture files: read, refused in one line, compared. For device and desk alike; numpy at import, OpenCV when used."""
