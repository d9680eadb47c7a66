"""The device side: numpy, OpenCV and one runtime; never torch or Ultralytics at import."""
