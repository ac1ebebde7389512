"""Captions and features of more photos than one machine can handle, with Apache Spark."""
