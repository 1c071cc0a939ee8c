"""A module for each file format, and the EXIF block that several share."""
