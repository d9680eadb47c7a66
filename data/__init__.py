"""What feeds training: data set descriptors and the renderer of the embedded scenes. No torch at import."""
