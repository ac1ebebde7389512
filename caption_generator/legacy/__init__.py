"""Files of older projects, made with Keras 2, become files of this project."""
