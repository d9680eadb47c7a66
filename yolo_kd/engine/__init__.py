"""The training engine: trainer, criterion, teacher, pre-flight."""
