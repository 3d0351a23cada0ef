"""The live page: faces, and sliders that steer them. Only `page` knows the library that draws it."""
